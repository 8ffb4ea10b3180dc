"""Prune one layer and change its other weights so that its output changes least."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.stages.patterns import losing

# Masks are chosen for so many inputs together, after all errors of those before are in.
_SPAN = 128


def hessian(layer: "keras.layers.Layer", batches: Iterable) -> np.ndarray:
    """Return the second derivative of a layer's squared output error by its kernel's inputs.

    `batches` are inputs of `layer`, a Conv1D, Conv2D or Dense. The result is the sum of `x xᵀ`
    over all `x` that the kernel is multiplied with, of shape (groups, d, d), one for each group
    of a grouped convolution, where d = positions * inputs.
    """
    total = np.zeros(())
    for batch in batches:
        columns = _columns(layer, batch)
        total = total + tf.matmul(columns, columns, transpose_a=True).numpy()
    return total


def reconstructed(
    weights: np.ndarray, hessian: np.ndarray, pattern: Any, zeros: int, dampening: float
) -> np.ndarray:
    """Return `weights` (positions, inputs, outputs) with `zeros` zeros and the rest corrected.

    Input by input, what the loss of weights does to the layer's output is taken back as far
    as the later inputs can; `hessian` (d, d) says how far. Zeros that are there stay.
    `dampening`, a share of its mean diagonal, is added to the diagonal. Source: Frantar and
    Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot".
    """
    positions, inputs, outputs = weights.shape
    size = positions * inputs
    damped = hessian + (dampening * np.trace(hessian) / size + 1e-12) * np.eye(size)
    upper = _inverse_root(damped)
    diagonal, found = np.diag(upper)[:, None], weights.reshape(size, outputs).astype(np.float64)
    there, gone = found == 0, np.zeros(found.shape, bool)
    able = _able(pattern, weights.shape)
    for rows in _spans(positions, inputs, pattern.tile[0]):
        costs = np.where(there[rows], 0, (found[rows] / diagonal[rows]) ** 2)
        wanted = round(zeros * able[rows.stop - 1] / able[-1]) - gone.sum()
        chosen = losing(pattern, tf.constant(costs[None]), max(wanted, 0))[0].numpy()
        gone[rows] = chosen | there[rows]
        errors = np.zeros_like(costs)
        for row in range(rows.start, rows.stop):
            error = np.where(gone[row], found[row], 0) / upper[row, row]
            found[row : rows.stop] -= np.outer(upper[row, row : rows.stop], error)
            errors[row - rows.start] = error
        found[rows.stop :] -= upper[rows, rows.stop :].T @ errors
    return np.where(gone, 0, found).reshape(weights.shape).astype(weights.dtype)


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangular U of which `Uᵀ U` is the inverse of `matrix`."""
    # The Cholesky factor from the last row to the first has U as its inverse, which saves
    # inverting the matrix itself.
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    inverse = tf.linalg.triangular_solve(lower, np.eye(len(matrix)), lower=True)
    return inverse.numpy()[::-1, ::-1]


def _columns(layer: Any, inputs: Any) -> Any:
    """Return what the kernel is multiplied with, (groups, products, d)."""
    if isinstance(layer, keras.layers.Dense):
        return tf.reshape(inputs, [1, -1, inputs.shape[-1]])
    groups, channels, padding = layer.groups, inputs.shape[-1], layer.padding.upper()
    if padding == "CAUSAL":
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        inputs, padding = tf.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "VALID"
    height = (1,) * (3 - len(inputs.shape[1:]))  # of steps, seen as an image of one row
    patches = tf.image.extract_patches(
        tf.reshape(inputs, [-1, *height, *inputs.shape[1:]]),
        [1, *height, *layer.kernel_size, 1],
        [1, *height, *layer.strides, 1],
        [1, *height, *layer.dilation_rate, 1],
        padding,
    )
    size = patches.shape[-1] // groups
    patches = tf.reshape(patches, [-1, patches.shape[-1] // channels, groups, channels // groups])
    return tf.reshape(tf.transpose(patches, [2, 0, 1, 3]), [groups, -1, size])


def _able(pattern: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return how many weights may go until each input, counted from the first."""
    may_go = pattern.may_go(tf.ones(shape)).numpy()
    return np.cumsum(may_go.sum(-1).ravel())


def _spans(positions: int, inputs: int, height: int) -> Iterator[slice]:
    """Yield the rows that are pruned together: whole tiles of one position."""
    span = max(_SPAN // height, 1) * height
    for position in range(positions):
        for start in range(0, inputs, span):
            begin = position * inputs
            yield slice(begin + start, begin + min(start + span, inputs))
