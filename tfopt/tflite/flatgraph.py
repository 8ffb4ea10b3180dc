"""What a .tflite says: its tensors, its operators, and the zeros and codes of its kernels."""

import contextlib
import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

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
_CONVERTERS = ("tfl.", "arith.")
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError)


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
    tensors: tuple[Tensor, ...] = ()

    def with_precision(self, precision: str) -> list[Operator]:
        """Return the operators that run in `precision`: float, hybrid, int16, int8 or other."""
        return [operator for operator in self.operators if operator.precision == precision]

    def kernels(self) -> tuple[Kernel, ...]:
        """Return the constant kernels, each once, in the order of their operators.

        Raises ValueError where a damaged file has scales or axes that its kernels have no use for.
        """
        with damage_in_one_sentence():
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


@contextlib.contextmanager
def damage_in_one_sentence() -> Iterator[None]:
    """Make a ValueError of one sentence of what a damaged file leads to."""
    try:
        yield
    except _DAMAGE as error:
        said = " ".join(str(error).split())
        raise ValueError(f"it is a damaged TFLite file ({said}).") from error


def stored_bytes(dtype: str, size: int) -> int:
    """Return the bytes that so many values of `dtype` take in a file."""
    bits = re.search(r"\d+$", dtype)
    return -(-size * (int(bits[0]) if bits else 8) // 8)


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
