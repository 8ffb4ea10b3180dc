"""What a .tflite says of itself, in lines for people."""

from collections.abc import Iterable, Iterator
from typing import Any

_SHOWN = 10
_FIELDS = ("name", "description", "version", "author", "license", "min_parser_version")
_COLOURS = {0: "unknown", 1: "RGB", 2: "greyscale"}


def lines(own: dict | None, standard: dict | None, files: list[dict]) -> list[tuple[str, str]]:
    """Return what and value: of TFLite's `standard` fields, tfopt's `own`, and attached `files`."""
    return [
        *_standard(standard or {}),
        *(_own(own) if own else []),
        *((f"file {file['name']}", f"{file['bytes']:,} bytes") for file in files),
    ]


def numbers(values: Iterable[float]) -> str:
    """Return `values` with as many digits as they need."""
    return ", ".join(f"{value:g}" for value in values)


def _standard(metadata: dict) -> Iterator[tuple[str, str]]:
    yield from ((name, metadata[name]) for name in _FIELDS if name in metadata)
    for graph in metadata.get("subgraph_metadata", []):
        for way in ("input", "output"):
            for tensor in graph.get(f"{way}_tensor_metadata", []):
                yield f"{way} {tensor.get('name', '')}".rstrip(), "; ".join(_meaning(tensor))


def _meaning(tensor: dict) -> Iterator[str]:
    """Yield what the metadata say of an input or output: what it is, and its numbers."""
    if "description" in tensor:
        yield tensor["description"]
    content = tensor.get("content", {})
    for kind, properties in content.get("content_properties", {}).items():
        yield " ".join([kind.removesuffix("Properties").lower(), *_properties(properties)])
    if "range" in content:
        yield "of {} to {}".format(*(content["range"].get(end, 0) for end in ("min", "max")))
    for unit in tensor.get("process_units", []):
        for options in unit.get("options", {}).values():
            found = ", ".join(f"{name} {numbers(value)}" for name, value in options.items())
            yield f"normalised by {found}"
    if stats := tensor.get("stats"):
        yield "from {} to {}".format(*(numbers(stats.get(end, [])) for end in ("min", "max")))
    for file in tensor.get("associated_files", []):
        yield f"see {file.get('name', '?')}"


def _properties(properties: dict) -> Iterator[str]:
    for name, value in properties.items():
        if name == "color_space":
            value = _COLOURS.get(value, value)
        elif isinstance(value, dict):
            value = "×".join(map(str, value.values()))
        yield f"{name}={value}"


def _own(own: dict) -> Iterator[tuple[str, str]]:
    names, normalisation = own["class_names"], own["normalisation"]
    more = [f"and {len(names) - _SHOWN} more, all in --json"] if len(names) > _SHOWN else []
    yield "tfopt", f"{own['version']}, config hash {own['config_hash']}"
    yield "stage, variant", f"{own['stage']}, {own['variant']}"
    yield "accuracy", f"{own['accuracy']:.2%} of {own['examples']:,} examples"
    yield "classes", ", ".join([*map(repr, names[:_SHOWN]), *more])
    yield "made of", _options(own["front_end"])
    yield "mean", numbers(normalisation["mean"])
    yield "deviation", numbers(normalisation["std"])


def _options(front_end: dict | None) -> str:
    """Return a front end as one writes it in a config, a vocabulary by its size."""
    if front_end is None:
        return "features"
    options = ", ".join(f"{name}={_short(x)}" for name, x in front_end.items() if name != "type")
    return f"{front_end['type'].split('.')[-1]}({options})"


def _short(value: Any) -> str:
    return f"{len(value):,} words, all in --json" if isinstance(value, list) else f"{value}"
