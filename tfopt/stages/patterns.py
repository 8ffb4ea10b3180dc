"""Which weights may go together: the pattern of zeros that hardware can use.

A kernel is seen as (positions, inputs, outputs): the places of a convolution's window (1 for
Dense), the channels that are summed over, and the channels that come out. Attention has heads
among its outputs, or in its last projection among its inputs.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from tfopt.compat import tf
from tfopt.facts import is_transposed
from tfopt.spec import bounded, spec

# The N:M patterns that hardware and papers know, and how near to its share of zeros one is.
_USUAL = ((2, 4), (1, 2), (3, 4), (1, 4), (4, 8), (6, 8))
_NEAR = 0.03


@spec
class Unstructured:
    """Each weight goes or stays on its own."""

    fixed: ClassVar[bool] = False

    @property
    def tile(self) -> tuple[int, int]:
        """The inputs and outputs of the weights that are decided on together."""
        return 1, 1

    def may_go(self, costs: Any) -> Any:
        """Return which weights of a unit go with it, bool, for costs (positions, in, out)."""
        return tf.ones_like(costs, tf.bool)


@spec
class Block:
    """Tiles of `height` inputs by `width` outputs go or stay as a whole.

    A tile that the kernel's edge cuts is a smaller one.
    """

    fixed: ClassVar[bool] = False

    height: int = bounded(4, least=1)
    width: int = bounded(1, least=1)

    @property
    def tile(self) -> tuple[int, int]:
        """The inputs and outputs of the weights that are decided on together."""
        return self.height, self.width

    def may_go(self, costs: Any) -> Any:
        """Return which weights of a unit go with it, bool, for costs (positions, in, out)."""
        return tf.ones_like(costs, tf.bool)


@spec
class NofM:
    """At most `of - zeros` weights stay of each `of` consecutive inputs of an output.

    This is N:M sparsity, 2:4 by default (Mishra et al. 2021, "Accelerating Sparse Deep Neural
    Networks"). Inputs that are no multiple of `of` count as filled up with zeros, which is how
    hardware pads them. While a stage's sparsity grows, a growing share of the groups has the
    pattern, those first that lose least.
    """

    fixed: ClassVar[bool] = True

    zeros: int = bounded(2, least=1)
    of: int = bounded(4, least=2)

    def rules(self) -> Any:
        """Yield what is impossible."""
        if self.zeros >= self.of:
            yield "zeros", f"fewer than of ({self.of})"

    @property
    def tile(self) -> tuple[int, int]:
        """The inputs and outputs of the weights that are decided on together."""
        return self.of, 1

    def may_go(self, costs: Any) -> Any:
        """Return which weights of a unit go with it, bool, for costs (positions, in, out)."""
        positions, inputs, outputs = costs.shape
        filling = -inputs % self.of
        # Costs are squares: what fills a group up goes before any weight.
        padded = tf.pad(costs, [[0, 0], [0, filling], [0, 0]], constant_values=-1)
        groups = tf.reshape(padded, [positions, -1, self.of, outputs])
        order = tf.argsort(groups, axis=2, stable=True)
        rank = tf.argsort(order, axis=2)
        return tf.reshape(rank < self.zeros, [positions, -1, outputs])[:, :inputs]


def folded(kernel: Any, inner_type: str, name: str = "kernel") -> Any:
    """Return the `kernel` that a layer of this class has by this name as (positions, in, out)."""
    kernel = tf.convert_to_tensor(kernel)
    if inner_type == "MultiHeadAttention":
        summed = kernel.shape[: 2 if "output" in name else 1]
        return tf.reshape(kernel, [1, math.prod(summed), -1])
    if is_transposed(inner_type):
        kernel = tf.linalg.matrix_transpose(kernel)
    return tf.reshape(kernel, [-1, *kernel.shape[-2:]])


def unfolded(values: Any, shape: tuple[int, ...], inner_type: str) -> Any:
    """Return what `folded` made of a kernel of `shape` in that shape again."""
    if not is_transposed(inner_type):
        return tf.reshape(values, shape)
    return tf.linalg.matrix_transpose(tf.reshape(values, [*shape[:-2], shape[-1], shape[-2]]))


def units(pattern: Any, costs: Any) -> tuple[Any, Any]:
    """Return by unit of `pattern` the cost of one zero of it, float, and its zeros, int."""
    if pattern.tile == (1, 1):
        return tf.reshape(costs, [-1]), tf.ones([costs.shape.num_elements()], tf.int32)
    numbers, count = _numbers(pattern.tile, costs.shape)
    may_go = tf.cast(pattern.may_go(costs), tf.int32)
    gains = tf.math.unsorted_segment_sum(may_go, numbers, count)
    cost = tf.math.unsorted_segment_sum(costs * tf.cast(may_go, costs.dtype), numbers, count)
    return tf.math.divide_no_nan(cost, tf.cast(gains, cost.dtype)), gains


def losing(pattern: Any, costs: Any, zeros: Any) -> Any:
    """Return where a kernel loses weights so that `zeros` of them are zero, bool.

    `costs` (positions, inputs, outputs) say what the loss of each weight costs, not negative;
    the units of `pattern` that cost least per zero go, to the nearest unit.
    """
    goes = _least(*units(pattern, costs), zeros)
    if pattern.tile == (1, 1):
        return tf.reshape(goes, costs.shape)
    numbers, _ = _numbers(pattern.tile, costs.shape)
    return tf.gather(goes, numbers) & pattern.may_go(costs)


def n_of_m(kernels: Sequence[Any]) -> NofM | None:
    """Return the N:M pattern that all of the sparse `kernels` (positions, in, out) have, if any.

    They have as many zeros as it brings by itself: more of them would have it by chance.
    """
    left = sum(int(tf.math.count_nonzero(kernel)) for kernel in kernels)
    share = left / max(sum(kernel.shape.num_elements() for kernel in kernels), 1)
    for zeros, of in _USUAL:
        pattern = NofM(zeros=zeros, of=of)
        if abs(share - (1 - zeros / of)) < _NEAR and all(has(pattern, k) for k in kernels):
            return pattern
    return None


def has(pattern: NofM, kernel: Any) -> bool:
    """Return whether `kernel` (positions, inputs, outputs) has the zeros of `pattern`."""
    return not bool(tf.reduce_any(pattern.may_go(tf.square(kernel)) & (kernel != 0)))


def most(pattern: Any, shape: tuple[int, ...], inner_type: str, name: str = "kernel") -> int:
    """Return how many zeros `pattern` can give to a kernel of `shape`."""
    costs = folded(tf.ones(shape), inner_type, name)
    return int(tf.math.count_nonzero(pattern.may_go(costs)))


def _numbers(tile: tuple[int, int], shape: Any) -> tuple[Any, int]:
    """Return the number of the unit that each weight belongs to, int, and how many there are."""
    positions, inputs, outputs = shape
    rows, columns = -(-inputs // tile[0]), -(-outputs // tile[1])
    row = tf.range(positions)[:, None, None] * rows + tf.range(inputs)[:, None] // tile[0]
    return row * columns + tf.range(outputs) // tile[1], positions * rows * columns


def _least(costs: Any, gains: Any, zeros: Any) -> Any:
    """Return which units go so that they give `zeros` zeros, bool, those of the least costs.

    The highest threshold below which no more go is found bit by bit, as the bits of floats
    that are not negative have their order: many times faster than a sort.
    """
    bits = tf.bitcast(tf.cast(costs, tf.float32), tf.int32)

    def given(chosen: Any) -> Any:
        return tf.where(chosen, gains, 0)

    def narrowed(threshold: Any, bit: Any) -> Any:
        fits = tf.reduce_sum(given(bits < threshold + bit)) <= zeros
        return tf.where(fits, threshold + bit, threshold)

    powers = tf.constant([2**bit for bit in reversed(range(31))], tf.int32)
    threshold = tf.foldl(narrowed, powers, tf.constant(0, tf.int32))
    below, tied = bits < threshold, given(bits == threshold)
    missing = zeros - tf.reduce_sum(given(below))
    return below | (bits == threshold) & (2 * tf.cumsum(tied) - tied <= 2 * missing)
