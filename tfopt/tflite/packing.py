"""Store the kernels of a .tflite that have 4 bits in 4 bits.

TFLite's converter widens them to int8: it knows the bits of a kernel only in a convolution,
and only by a simulated rounding that it can't move through a Dense layer's transposition.
"""

from typing import Any

import flatbuffers
import numpy as np

from tfopt.compat import tflite_schema
from tfopt.errors import RunError
from tfopt.tflite.flatgraph import kernel_layer

_WIDENED = 127 / 7
# By operator: the version since which its kernels may have 4 bits.
_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}
_KERNEL, _BIAS = 1, 2


def packed(content: bytes, layers: set[str]) -> bytes:
    """Return the .tflite `content` with the kernels of `layers` in 4 bits.

    Each code becomes the one of 15 that it stands for, and the bias is rescaled with it.
    Raises RunError where a kernel is missing or has values between those 15.
    """
    if not layers:
        return content
    model: Any = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
    names = {number: name for name, number in vars(tflite_schema.BuiltinOperator).items()}
    found = set()
    for graph in model.subgraphs:
        done: set[int] = set()
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            version = _VERSIONS.get(names[code.builtinCode])
            layer = version and kernel_layer(
                *(_name(graph.tensors[i]) for i in (operator.inputs[_KERNEL], operator.outputs[0]))
            )
            if layer in layers:
                code.version = max(code.version, version)
                found.add(layer)
                for place, pack in ((_KERNEL, _pack_kernel), (_BIAS, _rescale_bias)):
                    index = operator.inputs[place] if place < len(operator.inputs) else -1
                    if index >= 0 and index not in done:
                        pack(model, graph.tensors[index])
                        done.add(index)
    if layers - found:
        raise RunError(
            f"expected kernels of 4 bits of the layers {', '.join(sorted(layers))} in the file, "
            f"found none of {', '.join(sorted(layers - found))}; give these layers 8 bits."
        )
    drop_unused(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def drop_unused(model: Any) -> None:
    """Empty the buffers that nothing in `model` refers to any more."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {metadata.buffer for metadata in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _name(tensor: Any) -> str:
    return tensor.name.decode()


def _pack_kernel(model: Any, tensor: Any) -> None:
    wide = _stored(model, tensor, np.int8) / _WIDENED
    codes = np.round(wide).astype(np.int8)
    if np.abs(wide - codes).max() > 0.5 / _WIDENED:
        raise RunError(
            f"expected codes of 4 bits in the kernel {_name(tensor)!r}, found others up to "
            f"{np.abs(wide - codes).max():.2f} of a step away; it wasn't trained in 4 bits."
        )
    halves = np.pad(codes, (0, codes.size % 2)).astype(np.uint8) & 0xF
    tensor.type = tflite_schema.TensorType.INT4
    _store(model, tensor, halves[::2] | halves[1::2] << 4)


def _rescale_bias(model: Any, tensor: Any) -> None:
    codes = np.round(_stored(model, tensor, np.int32) / _WIDENED).astype(np.int32)
    _store(model, tensor, codes.view(np.uint8))


def _stored(model: Any, tensor: Any, dtype: type) -> np.ndarray:
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(dtype)


def _store(model: Any, tensor: Any, data: np.ndarray) -> None:
    """Give `tensor` a buffer of its own, as others may share its old one, and the wider scale."""
    tensor.quantization.scale = np.asarray(tensor.quantization.scale, np.float32) * _WIDENED
    buffer = tflite_schema.BufferT()
    buffer.data = data
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
