"""The ranges of activations that static quantization divides into its levels, from examples."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfopt.compat import litert
from tfopt.export.inputs import Examples, places
from tfopt.spec import bounded, spec
from tfopt.tflite import flatbuffer

_BATCH, _BINS, _LEVELS = 32, 4096, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values of one tensor fell into each of equal bins from `low` <= 0 to `high` >= 0.

    `zeros` of them were 0, as after a ReLU, which every range has an exact code for.
    """

    low: float
    high: float
    counts: np.ndarray
    zeros: int

    @property
    def edges(self) -> np.ndarray:
        """The borders of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


@spec
class MinMax:
    """The smallest and the largest value: nothing is cut off, and an outlier costs resolution."""

    name: ClassVar[str] = "minmax"

    def clip(self, seen: Histogram) -> tuple[float, float]:
        """Return the ends of the range for a tensor with the values `seen`."""
        return seen.low, seen.high

    def algorithm(self) -> str:
        """Return the name that ai-edge-quantizer has for it where weights are concerned."""
        return "min_max_uniform_quantize"


@spec
class Percentile:
    """All but a share of the values at each end (Wu et al. 2020, section 3.2).

    `percent` of the values lie below the upper end, and as many above the lower one.
    """

    percent: float = bounded(99.99, above=50, most=100)

    @property
    def name(self) -> str:
        """The word in the artifact's name."""
        return f"percentile{self.percent:g}".replace(".", "_")

    def clip(self, seen: Histogram) -> tuple[float, float]:
        """Return the ends of the range for a tensor with the values `seen`."""
        below = np.append(0, np.cumsum(seen.counts)) / max(seen.counts.sum(), 1)
        tail = 1 - self.percent / 100
        low, high = np.interp([tail, 1 - tail], below, seen.edges)
        return float(low), float(high)


@spec
class MSE:
    """The ends with the least squared error of cutting off and rounding together.

    Both ends are searched in turn over shares of the largest value (Nagel et al. 2021, "A white
    paper on neural network quantization", section 3.1).
    """

    name: ClassVar[str] = "mse"

    def clip(self, seen: Histogram) -> tuple[float, float]:
        """Return the ends of the range for a tensor with the values `seen`."""
        shares = np.linspace(0.01, 1, 100)
        low, high = seen.low, seen.high
        for _ in range(2):
            high = float(_least_error(seen, low, shares * seen.high)[1])
            low = float(_least_error(seen, shares * seen.low, high)[0])
        return low, high

    def algorithm(self) -> str:
        """Return the name that ai-edge-quantizer has for it where weights are concerned."""
        return "MSE"


def _least_error(seen: Histogram, lows: Any, highs: Any) -> tuple[float, float]:
    """Return that pair of `lows` and `highs`, which broadcast, with the least squared error."""
    lows, highs = np.broadcast_arrays(lows, highs)
    values = (seen.edges[1:] + seen.edges[:-1]) / 2
    counts = seen.counts.copy()
    counts[np.clip(np.searchsorted(seen.edges, 0, "right") - 1, 0, len(counts) - 1)] -= seen.zeros
    cut = values - np.clip(values, lows[:, None], highs[:, None])
    # Rounding is off by a uniform share of a step: its square is step² / 12 in the mean.
    rounding = (((highs - lows) / _LEVELS) ** 2 / 12)[:, None] * (cut == 0)
    best = np.argmin((cut**2 + rounding) @ counts)
    return lows[best], highs[best]


def ranges(content: bytes, examples: Examples, calibration: Any) -> dict[str, tuple[float, float]]:
    """Return by name the range of each float tensor that the .tflite `content` computes.

    `examples`, (n, *shape) for each input, run through the file twice: for the extremes and for
    what lies between. Zero is in every range, as it must have an exact code.
    """
    count = math.ceil(max(map(len, examples.values())) / _BATCH)
    parts = {name: np.array_split(values, count) for name, values in examples.items()}
    batches = [{name: each[number] for name, each in parts.items()} for number in range(count)]
    limits: dict[str, tuple[float, float]] = {}
    for name, values in _activations(content, batches):
        low, high = limits.get(name, (0.0, 0.0))
        limits[name] = min(low, float(values.min())), max(high, float(values.max()))
    counts, zeros = {name: np.zeros(_BINS) for name in limits}, Counter()
    for name, values in _activations(content, batches):
        counts[name] += np.histogram(values, _BINS, limits[name])[0]
        zeros[name] += int(np.count_nonzero(values == 0))
    found = {}
    for name, (low, high) in limits.items():
        seen = Histogram(low=low, high=high, counts=counts[name], zeros=zeros[name])
        ends = calibration.clip(seen)
        found[name] = min(ends[0], 0.0), max(ends[1], 0.0)
    return found


def _activations(content: bytes, batches: list[Examples]) -> Iterator[tuple[str, np.ndarray]]:
    # XNNPACK, the default delegate, keeps no tensor between its operators.
    interpreter = litert.Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    inputs, computed = places(interpreter), _computed(content)
    for batch in batches:
        for name, values in batch.items():
            interpreter.resize_tensor_input(inputs[name]["index"], values.shape)
        interpreter.allocate_tensors()
        for name, values in batch.items():
            interpreter.set_tensor(inputs[name]["index"], values.astype(inputs[name]["dtype"]))
        interpreter.invoke()
        for details in interpreter.get_tensor_details():
            if details["name"] in computed and details["dtype"] is np.float32:
                yield details["name"], interpreter.get_tensor(details["index"])


def _computed(content: bytes) -> set[str]:
    graph = flatbuffer.read(content)
    outputs = [tensor.name for operator in graph.operators for tensor in operator.outputs]
    return {*outputs, *(tensor.name for tensor in graph.inputs)}
