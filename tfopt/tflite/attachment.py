"""Metadata and files within a .tflite, by its bytes: its tensors stay as and where they are.

The metadata are a buffer of the model. The files are a zip behind the model, not compressed, as
TensorFlow's own tools do it; unzip reads it from the .tflite.
"""

import io
import struct
import zipfile

import flatbuffers
from flatbuffers import number_types as numbers
from flatbuffers.table import Table

_KEY = b"TFLITE_METADATA"
_ALIGNED = 16
# The slots of a Model, which has ten; of a Metadata, a Buffer, a SubGraph and an Operator.
_VERSION, _SUBGRAPHS, _BUFFERS, _METADATA, _SLOTS = 0, 2, 4, 6, 10
_NAME, _INDEX = 0, 1
_DATA, _OFFSET, _SIZE = 0, 1, 2
_OPERATORS = 3
_LARGE_OPTIONS = 9


def attach(content: bytes, metadata: bytes, files: dict[str, str]) -> bytes:
    """Return the .tflite `content` with `metadata` and `files` by name, instead of earlier ones."""
    model, _ = parted(content)
    out = io.BytesIO(_with_buffer(model, metadata))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            # Without a date, or no two runs would make the same file.
            archive.writestr(zipfile.ZipInfo(name), text.encode())
    return out.getvalue()


def parted(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the model alone, and the attached files by name."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content, {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        start = min((member.header_offset for member in members), default=len(content))
        return content[:start], {member.filename: archive.read(member) for member in members}


def attached_metadata(content: bytes) -> bytes | None:
    """Return the metadata in the .tflite `content`, None where there are none."""
    root = _root(content)
    found = [entry for entry in _tables(root, _METADATA) if _is_ours(entry)]
    if not found:
        return None
    buffer = _tables(root, _BUFFERS)[_index(found[-1])]
    if at := buffer.Offset(_offset(_DATA)):
        return content[buffer.Vector(at) :][: buffer.VectorLen(at)]
    start, size = (_long(buffer, slot) for slot in (_OFFSET, _SIZE))
    return content[start : start + size]


def _with_buffer(model: bytes, metadata: bytes) -> bytes:
    """Return `model` with `metadata` as one of its buffers.

    FlatBuffers point ahead, so a new root goes before all that is there, by as many bytes as
    leave the weights aligned. Taken apart and written again in Python, they would lose that.
    What nothing points to any more becomes zeros, which take no space in a compressed file.
    The data of a model over 2 GB are behind the FlatBuffer, which can't point so far, and are
    found by where they are in the file: these numbers grow by what went before.
    """
    model += bytes(-len(model) % _ALIGNED)
    root = _root(model)
    buffers, entries = _tables(root, _BUFFERS), _tables(root, _METADATA)
    earlier = [_index(entry) for entry in entries if _is_ours(entry)]
    index = earlier[-1] if earlier else len(buffers)

    content, outside = bytearray(model), _outside(root)
    end = min(outside.values(), default=len(model)) // _ALIGNED * _ALIGNED
    for table, slot, size in (
        *((root, slot, 4) for slot in (_BUFFERS, _METADATA)),
        *((buffers[index], _DATA, 1) for index in earlier),
    ):
        _blank(content, table, slot, size)
    builder = flatbuffers.Builder(0)
    builder.Bytes = content[:end]
    builder.head = 0  # all of it counts as written; what follows is written before it
    at = {id(table): end - table.Pos for table in (*buffers, *entries)}
    places = [at[id(buffer)] for buffer in buffers]
    places[index : index + 1] = [_buffer(builder, metadata)]
    kept = [at[id(entry)] for entry in entries if not _is_ours(entry)]
    slots = {
        _BUFFERS: _vector(builder, places),
        _METADATA: _vector(builder, [*kept, _entry(builder, index)]),
    }
    builder.StartObject(_SLOTS)
    for slot in range(_SLOTS):
        old = root.Offset(_offset(slot))
        if slot == _VERSION:
            version = root.GetSlot(_offset(slot), 0, numbers.Uint32Flags)
            builder.PrependUint32Slot(slot, version, 0)
        elif slot in slots:
            builder.PrependUOffsetTRelativeSlot(slot, slots[slot], 0)
        elif old:
            place = end - root.Indirect(root.Pos + old)
            builder.PrependUOffsetTRelativeSlot(slot, place, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    made = bytearray(builder.Output())
    grown = len(made) - end
    made += memoryview(content)[end:]
    for place, start in outside.items():
        struct.pack_into("<Q", made, place + grown, start + grown)
    return bytes(made)


def _outside(root: Table) -> dict[int, int]:
    """Return where data behind the FlatBuffer begin, by the place of the number that says so."""
    numbered = [(buffer, _OFFSET) for buffer in _tables(root, _BUFFERS)]
    numbered += [
        (operator, _LARGE_OPTIONS)
        for subgraph in _tables(root, _SUBGRAPHS)
        for operator in _tables(subgraph, _OPERATORS)
    ]
    return {
        table.Pos + table.Offset(_offset(slot)): start
        for table, slot in numbered
        # The converter has 1 for what it hasn't placed.
        if (start := _long(table, slot)) > 1
    }


def _blank(content: bytearray, table: Table, slot: int, size: int) -> None:
    """Make zeros of the vector in `slot` of `table`, whose items are of `size` bytes."""
    if at := table.Offset(_offset(slot)):
        start, length = table.Vector(at), table.VectorLen(at) * size
        content[start - 4 : start + length] = bytes(4 + length)


def _buffer(builder: flatbuffers.Builder, data: bytes) -> int:
    builder.StartVector(1, len(data), _ALIGNED)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    vector = builder.EndVector()
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(_DATA, vector, 0)
    return builder.EndObject()


def _entry(builder: flatbuffers.Builder, index: int) -> int:
    name = builder.CreateString(_KEY)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(_NAME, name, 0)
    builder.PrependUint32Slot(_INDEX, index, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, places: list[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _root(content: bytes) -> Table:
    return Table(content, Table(content, 0).Indirect(0))


def _tables(table: Table, slot: int) -> list[Table]:
    """Return the tables that the vector in `slot` of `table` lists."""
    at = table.Offset(_offset(slot))
    if not at:
        return []
    start, count = table.Vector(at), table.VectorLen(at)
    if 4 * count > len(table.Bytes):
        raise ValueError(f"a list of {count:,} tables")
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(count)]


def _is_ours(entry: Table) -> bool:
    name = entry.Offset(_offset(_NAME))
    return bool(name) and entry.String(entry.Pos + name) == _KEY


def _index(entry: Table) -> int:
    return entry.GetSlot(_offset(_INDEX), 0, numbers.Uint32Flags)


def _long(table: Table, slot: int) -> int:
    return table.GetSlot(_offset(slot), 0, numbers.Uint64Flags)


def _offset(slot: int) -> int:
    return 4 + 2 * slot
