"""Read a .tflite: its tensors, its operators, and the zeros and codes of its kernels."""

import contextlib
import gzip
import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.compat import tflite_schema
from tfopt.densify import densified

_IDENTIFIER = b"TFL3"
_VERSION = 3
_LATER = "tfopt reads 3, so look for a newer tfopt."
# The input that is the kernel, and the kernel's axis of output channels.
_KERNELS = {
    "CONV_2D": (1, 0),
    "DEPTHWISE_CONV_2D": (1, -1),
    "FULLY_CONNECTED": (1, 0),
    "TRANSPOSE_CONV": (1, 0),
    "CONV_3D": (1, -1),
    "CONV_3D_TRANSPOSE": (1, -2),
    "BATCH_MATMUL": (1, -1),
    "EMBEDDING_LOOKUP": (1, -1),
    "GATHER": (0, -1),
}
# What makes a kernel of the one that is stored.
_EXPANDING = ("DEQUANTIZE", "DENSIFY")
# Types without one of NumPy's own: their bytes are kept flat, and never taken for a kernel.
_OPAQUE = {"STRING", "RESOURCE", "VARIANT", "BFLOAT16", "INT2", "UINT4"}
_CONVERTERS = ("tfl.", "arith.")
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError)


class LaterError(ValueError):
    """The file is of a later version of TFLite's schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor; `values` holds a constant's stored numbers, None for what is computed.

    One that `keeps` its values from one inference to the next is a state. Of one that is stored in
    TFLite's `sparse` form, `values` has the zeros too.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    values: np.ndarray | None
    keeps: bool = False
    sparse: bool = False

    @property
    def bytes(self) -> int:
        """What its values take, at a batch of 1 where the batch is open."""
        return stored_bytes(self.dtype, math.prod(self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator: its type, as CONV_2D, and its tensors (None: an optional one left out)."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]

    @property
    def label(self) -> str:
        """The type and the layer that it computes."""
        names = [tensor.name for tensor in (*self.outputs, *self.inputs) if tensor]
        # The model's output is named after the call; its kernel knows the layer.
        inside = [name for name in (names[0], *names[2:], *names[1:2]) if "/" in name]
        return f"{self.kind} {layer_name(inside[0] if inside else names[0])}"

    def layers(self, known: Iterable[str]) -> set[str]:
        """Return which of the `known` layers it computes: several where they are fused.

        They are told by the names of its outputs, or by those of its constants: the model's
        output is named after the call.
        """
        constants = tuple(tensor for tensor in self.inputs if tensor and tensor.values is not None)
        for tensors in (self.outputs, constants):
            parts = {part for tensor in tensors for part in re.split("[;/]", tensor.name)}
            if parts & set(known):
                return parts & set(known)
        return set()

    @property
    def precision(self) -> str:
        """What it computes in: `float`, `hybrid`, `int16`, `int8`; `other`: shapes, constants.

        It is told by the types that flow through. Hybrid is float with weights in integers,
        which the runtime computes with integers of its own choice.
        """
        flowing = [tensor for tensor in self.inputs if tensor and tensor.values is None]
        if not flowing:
            return "other"
        dtypes = {tensor.dtype for tensor in (*flowing, *self.outputs)}
        if any(dtype.startswith(("float", "bfloat")) for dtype in dtypes):
            integers = self.kernel is not None and self.kernel.dtype.startswith(("int", "uint"))
            return "hybrid" if integers else "float"
        if "int16" in dtypes:
            return "int16"
        return "int8" if dtypes & {"int8", "uint8"} else "other"

    @property
    def kernel(self) -> Tensor | None:
        """The constant that is its weight matrix, if it has one."""
        place = _KERNELS.get(self.kind, (len(self.inputs), 0))[0]
        tensors = [tensor for tensor in self.inputs[place : place + 1] if tensor]
        return next((tensor for tensor in tensors if tensor.values is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A weight matrix as stored.

    `codes` is the largest number of distinct values in one output channel, `codes_total` that
    of the whole tensor. A zero is what dequantizes to 0. `bytes` are those that it takes in the
    file; the scales are the least and the greatest of its channels', None where it has none.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    zeros: int
    size: int
    codes: int
    codes_total: int
    bytes: int = 0
    scale_least: float | None = None
    scale_greatest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What a .tflite says, over all of its subgraphs; inputs and outputs are the first's.

    Signatures are as `serving_default(examples) -> logits`.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    signatures: tuple[str, ...] = ()

    def with_precision(self, precision: str) -> list[Operator]:
        """Return the operators that run in `precision`: float, hybrid, int16, int8 or other."""
        return [operator for operator in self.operators if operator.precision == precision]

    def kernels(self) -> tuple[Kernel, ...]:
        """Return the constant kernels, each once, in the order of their operators.

        Raises ValueError where a damaged file has scales or axes that its kernels have no use for.
        """
        with _damage_in_one_sentence():
            return tuple(self._kernels().values())

    def _kernels(self) -> dict[int, Kernel]:
        made = {
            id(operator.outputs[0]): operator.inputs[0]
            for operator in self.operators
            if operator.kind in _EXPANDING and operator.inputs
        }
        found: dict[int, Kernel] = {}
        for operator in self.operators:
            place, axis = _KERNELS.get(operator.kind, (len(operator.inputs), 0))
            for tensor in operator.inputs[place : place + 1]:
                stored = made.get(id(tensor), tensor)
                stored = made.get(id(stored), stored)  # a DENSIFY before a DEQUANTIZE
                if stored is not None and stored.values is not None and stored.values.ndim > 1:
                    layer = kernel_layer(stored.name, operator.outputs[0].name)
                    found.setdefault(id(stored), _kernel(layer, operator.kind, stored, axis))
        return found


def read(content: bytes) -> Graph:
    """Return what the .tflite `content` says; raise ValueError where it isn't one, or damaged."""
    check_mark(content)
    with _damage_in_one_sentence():
        model = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
        if model.version > _VERSION:
            raise LaterError(f"it is of version {model.version} of the schema; {_LATER}")
        for buffer in model.buffers:
            # Of a large model: behind the FlatBuffer, which can't address more than 2 GB.
            if getattr(buffer, "offset", 0) > 1:
                stored = content[buffer.offset : buffer.offset + buffer.size]
                buffer.data = np.frombuffer(stored, np.uint8)
        codes = [_operator_name(code) for code in model.operatorCodes]
        return _graph(model, codes)


@contextlib.contextmanager
def _damage_in_one_sentence() -> Iterator[None]:
    try:
        yield
    except LaterError:
        raise
    except _DAMAGE as error:
        said = " ".join(str(error).split())
        raise ValueError(f"it is a damaged TFLite file ({said}).") from error


def check_mark(content: bytes) -> None:
    """Raise ValueError unless `content`, which may be the first 8 bytes alone, is of a .tflite."""
    if content[4:7] == _IDENTIFIER[:3] and content[7:8] > _IDENTIFIER[3:]:
        raise ValueError(f"it is of a later schema, {content[4:8].decode('latin-1')}; {_LATER}")
    if content[4:8] != _IDENTIFIER:
        raise ValueError("it is not a TFLite file (it has no TFL3 mark).")


def stored_bytes(dtype: str, size: int) -> int:
    """Return the bytes that so many values of `dtype` take in a file."""
    bits = re.search(r"\d+$", dtype)
    return -(-size * (int(bits[0]) if bits else 8) // 8)


def gzip_size(content: bytes) -> int:
    """Return the bytes that gzip makes of `content`, the same on every day."""
    return len(gzip.compress(content, mtime=0))


def layer_name(tensor: str) -> str:
    """Return the Keras layer in a tensor's name, as `conv1` of `net/conv1_range/FakeQuant;...`."""
    parts = tensor.split(";")[0].split("/")
    return (parts[1] if len(parts) > 2 else tensor).removesuffix("_range")


def kernel_layer(kernel: str, output: str) -> str:
    """Return the Keras layer that has the kernel of this name.

    One that several operators use has a name of the converter's own: then the name of an
    `output` that is computed with it tells. Fused layers come last to first: the kernel is the
    last one's.
    """
    name = output if kernel.startswith(_CONVERTERS) else kernel
    return layer_name(name.split(";")[-1])


def _graph(model: Any, codes: list[str]) -> Graph:
    operators, ends = [], []
    for subgraph in model.subgraphs:
        tensors = [_tensor(model.buffers, tensor) for tensor in subgraph.tensors]
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
        signatures=tuple(_signature(each) for each in _listed(model.signatureDefs)),
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


def _kernel(layer: str, operator: str, tensor: Tensor, axis: int) -> Kernel:
    values: Any = tensor.values
    origin: Any = 0
    if any(tensor.zero_points):
        origin = np.asarray(tensor.zero_points, np.int64)
        if origin.size > 1:
            origin = origin.reshape([-1 if i == tensor.axis else 1 for i in range(values.ndim)])
    channels = np.sort(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1), axis=1)
    distinct = np.count_nonzero(channels[:, 1:] != channels[:, :-1], axis=1) + 1
    return Kernel(
        name=layer,
        operator=operator,
        shape=tensor.shape,
        dtype=tensor.dtype,
        zeros=int(np.count_nonzero(values == origin)),
        size=values.size,
        codes=int(distinct.max()),
        codes_total=int(np.unique(values).size),
        bytes=tensor.bytes,
        scale_least=min(tensor.scales, default=None),
        scale_greatest=max(tensor.scales, default=None),
    )


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
