"""What a .tflite says of itself: of what it was made, what it takes and gives, how good it was.

In TFLite Model Metadata is what they have fields for. In files that are attached are the names of
the classes and, for a text, its words, a line each, and as tfopt.json what there is no field for.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tfopt
from tfopt.data.front_end import FrontEnd, Image, LogMel, Tokens, Waveform
from tfopt.data.normalisation import Normalisation
from tfopt.data.splits import Spec
from tfopt.errors import ConfigError
from tfopt.spec import check_tree, plain
from tfopt.tflite.attachment import attach, attached_metadata, parted
from tfopt.tflite.metadata_schema import decoded, encoded

_LABELS, _VOCABULARY, _OWN = "labels.txt", "vocab.txt", "tfopt.json"
_DESCRIPTIONS, _AXIS_LABELS, _WORDS = 1, 2, 5  # an AssociatedFileType
_RGB, _GREY = 1, 2  # a ColorSpaceType
_DAMAGE = (
    *(ArithmeticError, AttributeError, ConfigError, EOFError, LookupError, RuntimeError),
    *(TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What tfopt writes into a file.

    `config_hash` is of all in the experiment that its result depends on; `accuracy` was measured
    on so many `examples` of the test split; `shape` is that of one example.
    """

    version: str = tfopt.__version__
    config: str
    config_hash: str
    stage: str
    variant: str
    accuracy: float
    examples: int
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: Normalisation = Normalisation()
    front_end: FrontEnd | None = None

    @classmethod
    def of(cls, spec: Spec, **about: Any) -> "Description":
        """Return the description of a model for data of `spec`, with the other fields `about`."""
        return cls(
            shape=tuple(spec.shape),
            class_names=tuple(spec.class_names),
            normalisation=spec.normalisation,
            front_end=spec.front_end,
            **about,
        )


def attached(content: bytes, description: Description) -> bytes:
    """Return the .tflite `content` with `description` in it, instead of an earlier one."""
    return attach(content, encoded(_standard(description)), _files(description))


def read(content: bytes) -> Description | None:
    """Return the description in the .tflite `content`, None where tfopt has put none there.

    Raises ValueError of one sentence where it is damaged.
    """
    with _damage_in_one_sentence():
        _, files = parted(content)
        if _OWN in files:
            return _described(files)
        if _OWN.encode() in (attached_metadata(content) or b""):
            raise ValueError("its attached files are gone: it was cut off")
        return None


def standard(content: bytes) -> dict | None:
    """Return the TFLite Model Metadata of the .tflite `content`, of any origin, None without any.

    Raises ValueError of one sentence where they are damaged.
    """
    with _damage_in_one_sentence():
        found = attached_metadata(content)
        return None if found is None else decoded(found)


def attached_bytes(content: bytes) -> int:
    """Return what the files behind the model in the .tflite `content` take, their names included.

    Raises ValueError of one sentence where they are damaged.
    """
    with _damage_in_one_sentence():
        return len(content) - len(parted(content)[0])


def sizes(content: bytes) -> dict[str, int]:
    """Return the bytes of the files that are attached to the .tflite `content`, of any origin.

    Raises ValueError of one sentence where they are damaged.
    """
    with _damage_in_one_sentence():
        return {name: len(file) for name, file in parted(content)[1].items()}


@contextmanager
def _damage_in_one_sentence() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"its metadata are damaged ({said}).") from error


def _files(description: Description) -> dict[str, str]:
    """Return the files to attach, by name."""
    own = plain(description)
    for name in ("type", "class_names", "normalisation", "front_end"):
        del own[name]
    own |= {
        name: [float(x) for x in getattr(description.normalisation, name)]
        for name in ("mean", "std")
    }
    lines = [" ".join(name.split()) for name in description.class_names]
    if lines != list(description.class_names):
        own["class_names"] = description.class_names
    found = {_LABELS: "\n".join(lines)}
    if (front_end := description.front_end) is not None:
        own["front_end"] = plain(front_end) | {"type": type(front_end).__name__}
    if isinstance(front_end, Tokens):
        own["front_end"].pop("vocabulary")
        found[_VOCABULARY] = "\n".join(front_end.vocabulary)
    return {_OWN: json.dumps(own, separators=(",", ":")), **found}


def _described(files: dict[str, bytes]) -> Description:
    own = json.loads(files[_OWN])
    lines = files[_LABELS].decode().split("\n")
    mean, std = tuple(own.pop("mean")), tuple(own.pop("std"))
    front_end = own.pop("front_end", None)
    if front_end is not None:
        kinds = {kind.__name__: kind for kind in (Image, Waveform, LogMel, Tokens)}
        kind = kinds[front_end.pop("type")]
        if kind is Tokens:
            front_end["vocabulary"] = tuple(files[_VOCABULARY].decode().split())
        front_end = kind(**front_end)
    found = Description(
        **own
        | {
            "shape": tuple(own["shape"]),
            "class_names": tuple(own.get("class_names", lines)),
            "normalisation": Normalisation(mean=mean, std=std),
            "front_end": front_end,
        }
    )
    check_tree(found, "description")
    return found


def _standard(description: Description) -> dict:
    """Return `description` as the fields of a ModelMetadata."""
    return {
        "name": description.config,
        "description": f"{description.stage} {description.variant}, accuracy "
        f"{description.accuracy:.2%} of {description.examples} examples",
        "version": description.version,
        "author": "tfopt",
        # That of the last field that is needed: sounds, vocabularies.
        "min_parser_version": {"Audio": "1.3.0", "Words": "1.0.1"}.get(_kind(description), "1.0.0"),
        "associated_files": [{"name": _OWN, "type": _DESCRIPTIONS}],
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [_input(description)],
                "output_tensor_metadata": [
                    {
                        "name": "logits",
                        "description": "of each class, before softmax",
                        "content": _content("Feature"),
                        "associated_files": [{"name": _LABELS, "type": _AXIS_LABELS}],
                    }
                ],
            }
        ],
    }


def _kind(description: Description) -> str:
    kinds = {Image: "Image", Waveform: "Audio", LogMel: "Audio", Tokens: "Words"}
    return kinds.get(type(description.front_end), "Feature")


def _content(kind: str, **properties: Any) -> dict:
    return {"content_properties": {f"{kind}Properties": properties}}


def _input(description: Description) -> dict:
    front_end, shape, kind = description.front_end, description.shape, _kind(description)
    found: dict[str, Any] = {
        "name": "examples",
        "description": f"{kind} {'×'.join(map(str, shape))}",
    }
    scale, limits = 1.0, ()
    if isinstance(front_end, Image):
        # Whoever reads this has pixels of 0..255.
        scale, limits = 255 / front_end.peak, (0, front_end.peak)
        found["content"] = _content(
            kind,
            color_space=_GREY if shape[-1] == 1 else _RGB,
            default_size={"width": shape[1], "height": shape[0]},
        )
    elif isinstance(front_end, Waveform | LogMel):
        limits = (-1, 1) if isinstance(front_end, Waveform) else ()
        found["content"] = _content(kind, sample_rate=front_end.rate, channels=1)
    else:
        found["content"] = _content("Feature")
    if isinstance(front_end, Tokens):
        found["associated_files"] = [{"name": _VOCABULARY, "type": _WORDS}]
    mean, std = description.normalisation.mean, description.normalisation.std
    options = {
        name: [scale * x for x in numbers] for name, numbers in (("mean", mean), ("std", std))
    }
    found["process_units"] = [{"options": {"NormalizationOptions": options}}]
    if limits:
        low, high = ([(x - m) / s for m, s in zip(mean, std, strict=True)] for x in limits)
        found["stats"] = {"max": high, "min": low}
    return found
