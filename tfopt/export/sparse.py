"""TFLite's sparse form of kernels that are mostly zeros, where LiteRT runs it."""

import logging
from typing import Any

import flatbuffers
import numpy as np

from tfopt.compat import tflite_convert, tflite_schema
from tfopt.tflite.flatbuffer import stored_values
from tfopt.tflite.packing import drop_unused

_LOG = logging.getLogger(__name__)
# What LiteRT 2.3 computes as it should, XNNPACK on, by the type of the kernel: from kernels that
# a DENSIFY expands when the file is loaded, and from sparse ones as they are. A DENSIFY before an
# int8 FULLY_CONNECTED isn't allocated, and a DEQUANTIZE takes blocks of float16 for dense ones.
_EXPANDED = {
    "FLOAT32": {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"},
    "FLOAT16": {"DEQUANTIZE"},
    "INT8": {"CONV_2D", "DEPTHWISE_CONV_2D"},
}
_SPARSE = {"FLOAT32": {"FULLY_CONNECTED"}, "INT8": {"FULLY_CONNECTED"}}


def sparsified(content: bytes, name: str) -> bytes:
    """Return the .tflite `content` with its kernels in the sparse form, where LiteRT runs that.

    Of the variant `name` it is told where that makes the file no smaller.
    """
    encoded: Any = tflite_convert.mlir_sparsify(content)
    model = _model(bytes(encoded))
    names = {key: tensor.name for key, tensor in _constants(_model(content)).items()}
    for key, tensor in _constants(model).items():
        if tensor.sparsity is not None:
            # The encoder gives kernels names of its own, which tell no layer.
            tensor.name = names.get(key, tensor.name)
    for graph in model.subgraphs:
        _expand(model, graph)
    drop_unused(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    made = bytes(builder.Output())
    if len(made) >= len(content):
        _LOG.warning(
            "variant %s: its %s bytes are no fewer than the %s of the dense file, as too few of "
            "its values are zeros, or in kernels of which LiteRT runs the sparse form; leave "
            "sparse out.",
            *(name, f"{len(made):,}", f"{len(content):,}"),
        )
    return made


def _model(content: bytes) -> Any:
    return tflite_schema.ModelT.InitFromPackedBuf(content, 0)


def _constants(model: Any) -> dict[tuple, Any]:
    """Return the constant tensors of `model` by what they hold."""
    found = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        values = stored_values(model.buffers, tensor)
        if values is not None and tensor.shape is not None:
            # Of -0, which the sparse form has no place for, 0.
            found[tensor.type, tuple(tensor.shape), (values + 0).tobytes()] = tensor
    return found


def _expand(model: Any, graph: Any) -> None:
    """Store densely what in `graph` LiteRT can't run in the sparse form."""
    kinds = {number: kind for kind, number in vars(tflite_schema.BuiltinOperator).items()}
    types = {number: kind for kind, number in vars(tflite_schema.TensorType).items()}

    def kind(operator: Any) -> str:
        return kinds[model.operatorCodes[operator.opcodeIndex].builtinCode]

    def users(index: int) -> list:
        return [operator for operator in graph.operators if index in operator.inputs]

    for index, tensor in enumerate(graph.tensors):
        if tensor.sparsity is None:
            continue
        dtype, dense = types[tensor.type], [op for op in users(index) if kind(op) == "DENSIFY"]
        expanded = {kind(user) for op in dense for user in users(op.outputs[0])}
        as_it_is = {kind(user) for user in users(index)} - {"DENSIFY"}
        if expanded <= _EXPANDED.get(dtype, set()) and as_it_is <= _SPARSE.get(dtype, set()):
            continue
        _store(model, tensor)
        for op in dense:
            for user in users(op.outputs[0]):
                user.inputs = np.where(user.inputs == op.outputs[0], index, user.inputs)
            graph.operators.remove(op)


def _store(model: Any, tensor: Any) -> None:
    values = stored_values(model.buffers, tensor)
    tensor.sparsity = None
    buffer = tflite_schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
