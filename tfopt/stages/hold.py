"""What earlier stages won stays: zeros stay zero and shared values stay shared.

The constraint is measured from the weights themselves and imposed on the variables, so that
it holds after every optimizer step, on every replica and after a resume, whatever the stage.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.config import RunError
from tfopt.facts import Facts, Kernel, channels, kernel_variables

# A float kernel has no exact zeros and hardly two equal values by itself; more than these
# shares were put there.
_SPARSE = 0.02
_SHARED = 0.5


def hold(model: "keras.Model") -> None:
    """Make every later optimizer step of `model` keep its zeros and its shared values."""
    for name, variable in kernel_variables(model).items():
        constraint = _constraint(variable.numpy(), name)
        for held in {id(v): v for v in (variable, *getattr(variable, "values", ()))}.values():
            held._constraint = constraint


def check_held(stage: str, before: Facts, after: Facts) -> None:
    """Raise RunError where `after` has fewer zeros or more distinct values than `before`.

    Kernels are told by the name of their layer and by their shape: one that was rebuilt in
    another shape is what its own stage asked for.
    """
    kept = {(kernel.layer, kernel.name, kernel.shape): kernel for kernel in after.kernels}
    for kernel in before.kernels:
        now = kept.get((kernel.layer, kernel.name, kernel.shape))
        for what, had, has in _losses(kernel, now) if now else ():
            raise RunError(
                f"stage {stage!r}: expected the {had:,} {what} of layer {kernel.layer!r} to "
                f"stay, measured {has:,}; the stage lost what an earlier one won."
            )


def _losses(before: Kernel, now: Kernel) -> Iterator[tuple[str, int, int]]:
    if is_sparse(before.zeros, before.size) and now.zeros < before.zeros:
        yield "zeros", before.zeros, now.zeros
    if is_shared(before.distinct, before.channel_size) and now.distinct > before.distinct:
        yield "distinct values per channel", before.distinct, now.distinct


def is_sparse(zeros: int, size: int) -> bool:
    """Return whether so many zeros were put there by a stage."""
    return zeros > _SPARSE * size


def is_shared(distinct: int, size: int) -> bool:
    """Return whether so few distinct values of so many were put there by a stage."""
    return size > 1 and distinct <= _SHARED * size


def _constraint(values: np.ndarray, name: str) -> Callable | None:
    zeros = values == 0
    sparse = is_sparse(zeros.sum(), values.size)
    groups = _groups(values, name)
    if groups is not None:
        return _tied(groups, zeros if sparse else np.zeros_like(zeros))
    if sparse:
        mask = (~zeros).astype(values.dtype)
        return lambda weight: weight * tf.constant(mask)
    return None


def _groups(values: np.ndarray, name: str) -> np.ndarray | None:
    """Return a number per weight, equal where weights share a value; None where few do."""
    _, groups = np.unique(values, return_inverse=True)
    groups = groups.reshape(values.shape)
    by_channel = channels(groups, name)
    if is_shared(groups.max() + 1, values.size) and groups.max() < len(by_channel):
        return groups
    distinct = (np.diff(np.sort(by_channel, 0), axis=0) != 0).sum(0) + 1
    if not is_shared(distinct.max(), len(by_channel)):
        return None
    apart = channels(np.arange(values.size).reshape(values.shape), name)
    numbered = by_channel + (groups.max() + 1) * np.arange(by_channel.shape[1])
    flat = np.empty(values.size, np.int64)
    flat[apart.ravel()] = np.unique(numbered, return_inverse=True)[1].ravel()
    return flat.reshape(values.shape)


def _tied(groups: np.ndarray, zeros: np.ndarray) -> Callable:
    count = int(groups.max()) + 1
    sizes = np.bincount(groups.ravel(), minlength=count)
    share = (~zeros / sizes[groups]).astype(np.float32)

    def tie(weight: Any) -> Any:
        members = tf.reshape(tf.cast(weight, tf.float32) * share, [-1])
        means = tf.math.unsorted_segment_sum(members, tf.constant(groups.ravel()), count)
        return tf.cast(tf.gather(means, tf.constant(groups)), weight.dtype)

    return tie
