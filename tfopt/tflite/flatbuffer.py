"""Read a .tflite."""

import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfopt.compat import tflite_schema
from tfopt.tflite.densify import densified
from tfopt.tflite.flatgraph import Graph, Operator, Tensor, damage_in_one_sentence

_IDENTIFIER = b"TFL3"
_VERSION = 3
_LATER = "tfopt reads 3, so look for a newer tfopt."
# Types without one of NumPy's own: their bytes are kept flat, and never taken for a kernel.
_OPAQUE = {"STRING", "RESOURCE", "VARIANT", "BFLOAT16", "INT2", "UINT4"}


def read(content: bytes) -> Graph:
    """Return what the .tflite `content` says; raise ValueError where it isn't one, or damaged."""
    check_mark(content)
    # What fails while the schema is loaded is no damage of the file.
    schema = tflite_schema.ModelT
    with damage_in_one_sentence():
        model = schema.InitFromPackedBuf(content, 0)
    if model.version > _VERSION:
        raise ValueError(f"it is of version {model.version} of the schema; {_LATER}")
    with damage_in_one_sentence():
        for buffer in model.buffers:
            # Of a large model: behind the FlatBuffer, which can't address more than 2 GB.
            if getattr(buffer, "offset", 0) > 1:
                stored = content[buffer.offset : buffer.offset + buffer.size]
                buffer.data = np.frombuffer(stored, np.uint8)
        return _graph(model, [_operator_name(code) for code in model.operatorCodes])


def check_mark(content: bytes) -> None:
    """Raise ValueError unless `content`, which may be the first 8 bytes alone, is of a .tflite."""
    if content[4:7] == _IDENTIFIER[:3] and content[7:8] > _IDENTIFIER[3:]:
        raise ValueError(f"it is of a later schema, {content[4:8].decode('latin-1')}; {_LATER}")
    if content[4:8] != _IDENTIFIER:
        raise ValueError("it is not a TFLite file (it has no TFL3 mark).")


def gzip_size(content: bytes) -> int:
    """Return the bytes that gzip makes of `content`, the same on every day."""
    return len(gzip.compress(content, mtime=0))


def _graph(model: Any, codes: list[str]) -> Graph:
    operators, ends, each = [], [], []
    for subgraph in model.subgraphs:
        tensors = [_tensor(model.buffers, tensor) for tensor in subgraph.tensors]
        each += tensors
        ends.append([tuple(tensors[i] for i in way) for way in (subgraph.inputs, subgraph.outputs)])
        for operator in _listed(subgraph.operators):
            operators.append(
                Operator(
                    kind=codes[operator.opcodeIndex],
                    inputs=tuple(tensors[i] if i >= 0 else None for i in _listed(operator.inputs)),
                    outputs=tuple(tensors[i] for i in _listed(operator.outputs)),
                )
            )
    return Graph(
        inputs=ends[0][0],
        outputs=ends[0][1],
        operators=tuple(operators),
        signatures=tuple(_signature(made) for made in _listed(model.signatureDefs)),
        tensors=tuple(each),
    )


def _signature(signature: Any) -> str:
    given, made = (
        ", ".join(_text(tensor.name) for tensor in _listed(way))
        for way in (signature.inputs, signature.outputs)
    )
    return f"{_text(signature.signatureKey)}({given}) -> {made}"


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def _tensor(buffers: list, tensor: Any) -> Tensor:
    kind = _enum(tflite_schema.TensorType, tensor.type)
    shape = tuple(int(size) for size in _listed(tensor.shape))
    quantization, name = tensor.quantization, _text(tensor.name)
    return Tensor(
        name=name,
        shape=shape,
        dtype=kind.lower(),
        scales=tuple(float(x) for x in _listed(quantization and quantization.scale)),
        zero_points=tuple(int(x) for x in _listed(quantization and quantization.zeroPoint)),
        axis=quantization.quantizedDimension if quantization else 0,
        values=stored_values(buffers, tensor),
        keeps=bool(tensor.isVariable),
        sparse=tensor.sparsity is not None,
    )


def stored_values(buffers: list, tensor: Any) -> np.ndarray | None:
    """Return the numbers that the schema's `tensor` has in `buffers`, None of a computed one."""
    data = buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    kind = _enum(tflite_schema.TensorType, tensor.type)
    if kind in _OPAQUE or kind.startswith("FLOAT8"):
        return np.asarray(data)
    shape = tuple(int(size) for size in _listed(tensor.shape))
    dtype = "int8" if kind == "INT4" else kind.lower()
    raw = np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype)
    if kind == "INT4":
        # Two in a byte, the low half first; shifting up and down again extends the sign.
        raw = np.stack([raw << 4 >> 4, raw >> 4], axis=-1).reshape(-1)[: int(np.prod(shape))]
    return raw.reshape(shape) if tensor.sparsity is None else densified(tensor.sparsity, raw, shape)


def _operator_name(code: Any) -> str:
    # Files from before 2020 have the number in the old, 8 bit wide field.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _enum(tflite_schema.BuiltinOperator, number)
    return code.customCode.decode() if name == "CUSTOM" else name


def _enum(enum: Any, number: int) -> str:
    names: Iterator[str] = (name for name, value in vars(enum).items() if value == number)
    return next(names, f"UNKNOWN_{number}")


def _listed(vector: Any) -> Any:
    return [] if vector is None else vector
