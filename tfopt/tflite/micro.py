"""What a microcontroller takes: TensorFlow Lite Micro's operators, its arena, and budgets."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.limits import Budget
from tfopt.tflite.flatgraph import Graph, Kernel, Operator, Tensor
from tfopt.tflite.metadata import attached_bytes

# Those that MicroMutableOpResolver can add (tflite-micro, micro_mutable_op_resolver.h).
OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CIRCULAR_BUFFER CONCATENATION CONV_2D COS
    CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP
    EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND
    GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL
    LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX RELU
    RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SELECT_V2 SHAPE SIN SLICE
    SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TFLite_Detection_PostProcess TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)
_SUBGRAPHS = {"CALL_ONCE", "IF", "WHILE"}
_WIDTHS = {"bool": 1, "float32": 4, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1}
_FOUR_BITS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
# What flows through kernels with weights is one of these; they had uint8 once.
_COMPUTED = {"float32", "int8", "int16"}
_WITH_WEIGHTS = {
    *_FOUR_BITS,
    "TRANSPOSE_CONV",
    "BATCH_MATMUL",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
}
# Each buffer of the arena begins at a multiple of it (micro_arena_constants.h).
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor that is computed: its bytes, and the first and the last operator that need it."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The arena: `bytes` of activations as planned, and `peak`, the least that any plan needs.

    `peak_at` is the operator at which most bytes are alive. `states` are bytes of what is kept
    from one inference to the next, beside the activations.
    """

    bytes: int
    peak: int
    peak_at: str
    states: int = 0

    @property
    def taken(self) -> int:
        """The bytes that the model takes of the arena."""
        return self.bytes + self.states


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a file takes of a microcontroller.

    `flash` are its bytes, of which `attached` those of the files behind the model; `arena` is the
    plan of its activations, None where there is none; `refused` says why it can't run there,
    `largest` is the kernel of most bytes.
    """

    flash: int
    arena: Plan | None
    refused: list[str]
    largest: Kernel | None
    attached: int = 0

    @property
    def arena_bytes(self) -> int | None:
        """The bytes that the model takes of the arena, None where they can't be planned."""
        return self.arena.taken if self.arena else None

    def missed(self, budget: Budget) -> list[str]:
        """Return a sentence for each limit that is missed, with the layer to shrink."""
        return [*self._flash_missed(budget.flash), *self._arena_missed(budget.arena)]

    def _flash_missed(self, limit: int) -> Iterator[str]:
        if limit and self.flash > limit:
            which = f"; the largest kernel is that of {self.largest.name!r}" if self.largest else ""
            if self.attached > (self.largest.bytes if self.largest else 0):
                which = (
                    f"; {self.attached:,} are attached files, the names of classes and the words "
                    "of a vocabulary, have fewer or shorter ones"
                )
            yield f"flash: {self.flash - limit:,} bytes more than {limit:,}{which}."

    def _arena_missed(self, limit: int) -> Iterator[str]:
        if limit and self.refused:
            yield "arena: it isn't planned for a file that can't run there."
        elif limit and self.arena is None:
            yield "arena: it isn't planned for a model with subgraphs; leave that limit out."
        elif limit and self.arena.taken > limit:
            yield (
                f"arena: {self.arena.taken - limit:,} bytes more than {limit:,}; most are alive at "
                f"{self.arena.peak_at!r}, shrink what it reads or writes."
            )


def fit(content: bytes, graph: Graph) -> Fit:
    """Return what the .tflite `content`, read as `graph`, takes of a microcontroller.

    Raises ValueError of one sentence where its kernels or attached files are damaged.
    """
    refused = refusals(graph)
    return Fit(
        flash=len(content),
        arena=None if refused else plan(graph),
        refused=refused,
        largest=max(graph.kernels(), key=lambda kernel: kernel.bytes, default=None),
        attached=attached_bytes(content),
    )


def refusals(graph: Graph) -> list[str]:
    """Return why TensorFlow Lite Micro can't run `graph`, a reason an operator; none if it can."""
    return list(dict.fromkeys(reason for each in graph.operators for reason in _reasons(each)))


def _reasons(operator: Operator) -> Iterator[str]:
    if operator.kind not in OPERATORS:
        yield f"{operator.label}: it has no such operator"
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor]
    allowed = {*_WIDTHS, "resource"} | ({"int4"} if operator.kind in _FOUR_BITS else set())
    for tensor in tensors:
        if tensor.sparse:
            yield f"{operator.label}: it has no sparse tensors, as {tensor.name!r} is"
    for dtype in sorted({tensor.dtype for tensor in tensors} - allowed):
        yield f"{operator.label}: it has no {dtype} here"
    if operator.kind not in _WITH_WEIGHTS:
        return
    flowing = {tensor.dtype for tensor in tensors if tensor.values is None}
    weights = {each.dtype for each in tensors if each.values is not None and len(each.shape) > 1}
    for dtype in sorted((flowing & allowed) - _COMPUTED):
        yield f"{operator.label}: it has no {dtype} kernel"
    if "float32" in flowing and weights - {"float32"}:
        yield f"{operator.label}: it has no hybrid kernels, of float inputs and integer weights"


def plan(graph: Graph) -> Plan | None:
    """Return what the activations of `graph`, which has no `refusals`, take of the arena.

    None where it has other subgraphs, whose tensors come on top. Beside it the arena has
    TensorFlow Lite Micro's own structures, a few hundred bytes an operator, and what kernels ask
    for as scratch.
    """
    if any(operator.kind in _SUBGRAPHS for operator in graph.operators):
        return None
    tensors = [tensor for operator in graph.operators for tensor in operator.inputs if tensor]
    states = {id(tensor): _bytes(tensor) for tensor in tensors if tensor.keeps}
    buffers = lifetimes(graph)
    if not buffers or not graph.operators:
        return Plan(bytes=0, peak=0, peak_at="", states=sum(states.values()))
    alive = [
        sum(buffer.size for buffer in buffers if buffer.first <= time <= buffer.last)
        for time in range(len(graph.operators))
    ]
    peak = int(np.argmax(alive))
    offsets = placed(buffers)
    ends = [offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True)]
    return Plan(
        bytes=max(ends),
        peak=alive[peak],
        peak_at=graph.operators[peak].label,
        states=sum(states.values()),
    )


def lifetimes(graph: Graph) -> list[Buffer]:
    """Return the buffers of all computed tensors: inputs from the start, outputs to the end."""
    end = len(graph.operators) - 1
    tensors: dict[int, Tensor] = {id(tensor): tensor for tensor in graph.inputs}
    spans: dict[int, list[int]] = {id(tensor): [0, 0] for tensor in graph.inputs}
    for time, operator in enumerate(graph.operators):
        for tensor in (*operator.inputs, *operator.outputs):
            # States lie elsewhere for good, and a resource is a handle.
            if tensor is None or tensor.values is not None or tensor.keeps:
                continue
            if tensor.dtype != "resource":
                tensors[id(tensor)] = tensor
                spans.setdefault(id(tensor), [time, time])[1] = time
    for tensor in graph.outputs:
        if id(tensor) in spans:
            spans[id(tensor)][1] = end
    return [Buffer(tensors[key].name, _bytes(tensors[key]), *span) for key, span in spans.items()]


def placed(buffers: Sequence[Buffer]) -> list[int]:
    """Return an offset for each of `buffers`, none overlapping while both are alive.

    The largest first, each at the lowest gap that is wide enough (tflite-micro,
    greedy_memory_planner.cc).
    """
    offsets: dict[int, int] = {}
    for index in sorted(range(len(buffers)), key=lambda i: -buffers[i].size):
        wanted, offset = buffers[index], 0
        beside = [
            (offsets[other], buffers[other].size)
            for other in offsets
            if buffers[other].first <= wanted.last and wanted.first <= buffers[other].last
        ]
        for start, size in sorted(beside):
            if start - offset >= wanted.size:
                break
            offset = max(offset, start + size)
        offsets[index] = offset
    return [offsets[index] for index in range(len(buffers))]


def _bytes(tensor: Any) -> int:
    return _ALIGNMENT * math.ceil(math.prod(tensor.shape) * _WIDTHS[tensor.dtype] / _ALIGNMENT)
