"""A stage's model for who has no tfopt: as SavedModel and as Keras file."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.checkpoint import remove, renamed, write_atomically
from tfopt.compat import keras, tf
from tfopt.export.converter import traced
from tfopt.facts import is_quantized

_LOG = logging.getLogger(__name__)
SIGNATURE = "serving_default"
# What stands in a Keras file as Python's bytes, or by a name that only its author knows.
_CODE = ("Lambda", "__lambda__", "function")
_LAMBDA = "The object being serialized includes a `lambda`"


def write(model: "keras.Model", folder: Path, name: str) -> None:
    """Write `model` to `folder` as `name`.keras and as `name`_saved_model; both give logits.

    The SavedModel has the signature of the .tflite, and of a quantization-aware model the
    roundings, as operators of its graph: it is the one to compare the .tflite with. The Keras file
    has plain layers only: of a quantization-aware model its rounded kernels between float
    activations. A model with layers or functions of its own has no Keras file, which is told.
    """
    plain = _plain(model)
    if found := _foreign(plain):
        _LOG.info("%s: has no Keras file, as Keras doesn't know its %r.", name, found)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / f"{name}.keras"
            plain.save(path)
            write_atomically(folder / path.name, path.read_bytes())
    function, owner = traced(model)
    # Last, since its being there says that all is.
    with renamed(_folder(folder, name), folder=True) as path:
        tf.saved_model.save(owner, str(path), signatures={SIGNATURE: function})


def is_written(folder: Path, name: str) -> bool:
    """Return whether `write` came to its end for `name` in `folder`: its SavedModel is there.

    A Keras file that was deleted since isn't missed, as not every model has one; `discard` has
    both written anew.
    """
    # TensorFlow writes the weights before it.
    return (_folder(folder, name) / "saved_model.pb").exists()


def discard(folder: Path, name: str) -> None:
    """Remove what `write` has written of `name` to `folder`, if anything."""
    remove(_folder(folder, name))
    remove(folder / f"{name}.keras")


def _folder(folder: Path, name: str) -> Path:
    return folder / f"{name}_saved_model"


def _plain(model: "keras.Model") -> "keras.Model":
    # Deferred, since it loads TensorFlow.
    from tfopt.rounding import unranged

    return unranged(model) if is_quantized(model) else model


def _foreign(model: Any) -> str:
    """Return the first class or function in `model` that Keras alone can't make, "" if none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", _LAMBDA)
        try:
            return next(_foreign_in(keras.saving.serialize_keras_object(model)), "")
        except UserWarning:
            return "lambda"


def _foreign_in(node: Any) -> Iterator[str]:
    if isinstance(node, (list, tuple)):
        for each in node:
            yield from _foreign_in(each)
    if not isinstance(node, dict):
        return
    kind, name = node.get("class_name"), str(node.get("registered_name") or "")
    own = (node.get("module") or "keras").split(".")[0] not in ("builtins", "keras", "tf_keras")
    if kind in _CODE or (kind and (own or ">" in name)):
        yield name.split(">")[-1] or str(kind)
    for each in node.values():
        yield from _foreign_in(each)
