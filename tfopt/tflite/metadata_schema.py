"""TFLite Model Metadata as a FlatBuffer and back: the tables of its schema, version 1.5.0.

https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata
"""

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types as numbers
from flatbuffers.table import Table

_IDENTIFIER = b"M001"
_SCALARS = {
    "int8": numbers.Int8Flags,
    "uint8": numbers.Uint8Flags,
    "int32": numbers.Int32Flags,
    "uint32": numbers.Uint32Flags,
    "float32": numbers.Float32Flags,
}
# Of each table the fields in the order of their slots, those that nobody here needs as well.
# A union takes two slots, of which the first says by a number which of these it is.
_UNIONS = {
    "ContentProperties": (
        *("NONE", "FeatureProperties", "ImageProperties", "BoundingBoxProperties"),
        "AudioProperties",
    ),
    "ProcessUnitOptions": ("NONE", "NormalizationOptions"),
}
_FILES = "[AssociatedFile]"
_TABLES: dict[str, dict[str, str]] = {
    "ModelMetadata": {
        **dict.fromkeys(("name", "description", "version"), "string"),
        "subgraph_metadata": "[SubGraphMetadata]",
        **dict.fromkeys(("author", "license"), "string"),
        "associated_files": _FILES,
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        **dict.fromkeys(("name", "description"), "string"),
        **dict.fromkeys(("input_tensor_metadata", "output_tensor_metadata"), "[TensorMetadata]"),
        "associated_files": _FILES,
    },
    "TensorMetadata": {
        **dict.fromkeys(("name", "description"), "string"),
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": _FILES,
    },
    "Content": {
        "content_properties_type": "uint8",
        "content_properties": "ContentProperties",
        "range": "ValueRange",
    },
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "int8", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint32", "height": "uint32"},
    "AudioProperties": {"sample_rate": "uint32", "channels": "uint32"},
    "ValueRange": {"min": "int32", "max": "int32"},
    "ProcessUnit": {"options_type": "uint8", "options": "ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float32]", "std": "[float32]"},
    "Stats": {"max": "[float32]", "min": "[float32]"},
    "AssociatedFile": {
        **dict.fromkeys(("name", "description"), "string"),
        "type": "int8",
        **dict.fromkeys(("locale", "version"), "string"),
    },
}


def encoded(metadata: dict) -> bytes:
    """Return the FlatBuffer of `metadata`: the fields of a ModelMetadata by name.

    A union is a dict of one entry, the name of its table and the fields.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_put(builder, "ModelMetadata", metadata), _IDENTIFIER)
    return bytes(builder.Output())


def decoded(content: bytes) -> dict:
    """Return what `encoded` made `content` of, or raise struct.error, ValueError or the like."""
    if content[4:8] != _IDENTIFIER:
        raise ValueError("its metadata have no M001 mark")
    root = Table(content, 0)
    return _fields(Table(content, root.Indirect(0)), "ModelMetadata")


def _put(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    """Write `value` and return where it is, from the end of the buffer."""
    if kind == "string":
        return builder.CreateSharedString(value)
    if kind.startswith("["):
        inner = kind[1:-1]
        if inner in _SCALARS:
            return builder.CreateNumpyVector(np.array(value, inner))
        places = [_put(builder, inner, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    if kind in _UNIONS:
        ((kind, value),) = value.items()
    value = {**value, **_numbers(kind, value)}
    fields = list(_TABLES[kind].items())
    places = {
        name: _put(builder, inner, value[name])
        for name, inner in fields
        if name in value and inner not in _SCALARS
    }
    builder.StartObject(len(fields))
    for slot, (name, inner) in enumerate(fields):
        if name in places:
            builder.PrependUOffsetTRelativeSlot(slot, places[name], 0)
        elif name in value:
            builder.PrependSlot(_SCALARS[inner], slot, value[name], 0)
    return builder.EndObject()


def _numbers(kind: str, value: dict) -> dict[str, int]:
    """Return the numbers that say which table each union in `value` is."""
    unions = {name: inner for name, inner in _TABLES[kind].items() if inner in _UNIONS}
    return {
        f"{name}_type": _UNIONS[inner].index(next(iter(value[name])))
        for name, inner in unions.items()
        if name in value
    }


def _fields(table: Table, kind: str) -> dict:
    found = {}
    for slot, (name, inner) in enumerate(_TABLES[kind].items()):
        place = table.Offset(4 + 2 * slot)
        if place and inner in _UNIONS:
            number = found.pop(f"{name}_type", 0)
            # One that isn't here, as a tokenizer, is passed over.
            inner = _UNIONS[inner][number] if number < len(_UNIONS[inner]) else "NONE"
            if inner in _TABLES:
                found[name] = {inner: _got(table, table.Pos + place, inner)}
        elif place:
            found[name] = _got(table, table.Pos + place, inner)
    return found


def _got(table: Table, at: int, kind: str) -> Any:
    if kind in _SCALARS:
        return table.Get(_SCALARS[kind], at)
    if kind == "string":
        return table.String(at).decode(errors="replace")
    if not kind.startswith("["):
        return _fields(Table(table.Bytes, table.Indirect(at)), kind)
    start, inner = table.Indirect(at), kind[1:-1]
    count = table.Get(numbers.UOffsetTFlags, start)
    if 4 * count > len(table.Bytes):
        raise ValueError(f"its metadata have a list of {count:,}")
    return [_got(table, start + 4 + 4 * index, inner) for index in range(count)]
