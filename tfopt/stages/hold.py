"""What earlier stages won stays: zeros stay zero and shared values stay shared.

The constraint is measured from the weights themselves and imposed on the variables, so that
it holds after every optimizer step, on every replica and after a resume, whatever the stage.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.config import RunError
from tfopt.facts import Facts, Kernel, kernel_variables

# A float kernel has no exact zeros and hardly two equal values by itself; more than these
# shares were put there.
_SPARSE = 0.02
_SHARED = 0.5


def hold(model: "keras.Model", *, trained: bool) -> None:
    """Make every later optimizer step of `model` keep its zeros and its shared values.

    Of a model that wasn't `trained`, kernels that are constant or an identity are an
    initializer's, and free to become anything; others come from a file that the user loads.
    Weights that are equal stay equal, at the mean of what the step made of them. Those that a
    pruning wrapper masks are left out, since the step moves them away from zero.
    """
    masks = _masks(model)
    for name, variable in kernel_variables(model).items():
        values = variable.numpy()
        if not trained and _is_initial(len(np.unique(values)), bool(np.any(values == 0))):
            continue
        constraint = _constraint(values, masks.get(name))
        for held in {id(v): v for v in (variable, *getattr(variable, "values", ()))}.values():
            held._constraint = constraint


def check_held(
    stage: str, before: Facts, after: Facts, *, trained: bool = True, scaled: bool = False
) -> None:
    """Raise RunError where `after` has fewer zeros or more distinct values than `before`.

    Of kernels that are `scaled` by channel, as quantization does, only the values of a channel
    are compared. Kernels are told by the name of their layer and by their shape: one that was
    rebuilt in another shape is what its own stage asked for. `trained` is that of `hold`.
    """
    kept = {(kernel.layer, kernel.name, kernel.shape): kernel for kernel in after.kernels}
    for kernel in before.kernels:
        if not trained and _is_initial(kernel.distinct_total, kernel.zeros > 0):
            continue
        now = kept.get((kernel.layer, kernel.name, kernel.shape))
        for what, had, has in _losses(kernel, now, scaled) if now else ():
            raise RunError(
                f"stage {stage!r}: expected the {had:,} {what} of layer {kernel.layer!r} to "
                f"stay, measured {has:,}; the stage lost what an earlier one won."
            )


def _is_initial(distinct: int, has_zeros: bool) -> bool:
    """Return whether a kernel of so many values may be a constant, or an identity."""
    return distinct <= 1 + has_zeros


def _losses(before: Kernel, now: Kernel, scaled: bool) -> Iterator[tuple[str, int, int]]:
    if is_sparse(before.zeros, before.size) and now.zeros < before.zeros:
        yield "zeros", before.zeros, now.zeros
    # Pruning a kernel of shared values adds 0 to these.
    added = int(now.zeros > before.zeros)
    for what, size, had, has in (
        ("distinct values", before.size, before.distinct_total, now.distinct_total),
        ("distinct values per channel", before.channel_size, before.distinct, now.distinct),
    ):
        compared = not scaled or size == before.channel_size
        if compared and is_shared(had, size) and has > had + added:
            yield what, had, has


def is_sparse(zeros: int, size: int) -> bool:
    """Return whether so many zeros were put there by a stage."""
    return zeros > _SPARSE * size


def is_shared(distinct: int, size: int) -> bool:
    """Return whether so few distinct values of so many were put there by a stage."""
    return size > 1 and distinct <= _SHARED * size


def _masks(model: "keras.Model") -> dict[str, Any]:
    """Return the mask of each kernel that a wrapper prunes, (kernel's shape) of 0 and 1."""
    variables = {id(weight): name for name, weight in kernel_variables(model).items()}
    wrappers = [layer.pruning_vars for layer in model.layers if hasattr(layer, "pruning_vars")]
    return {variables[id(weight)]: mask for pairs in wrappers for weight, mask, *_ in pairs}


def _constraint(values: np.ndarray, mask: Any) -> Callable | None:
    zeros = values == 0
    sparse = is_sparse(zeros.sum(), values.size)
    kept = (~zeros if sparse else np.ones_like(zeros)).astype(np.float32)
    distinct, groups = np.unique(values, return_inverse=True)
    if is_shared(len(distinct), values.size):
        return _tied(groups.reshape(values.shape), kept, mask)
    if sparse:
        return lambda weight: weight * tf.constant(kept, weight.dtype)
    return None


def _tied(groups: np.ndarray, kept: np.ndarray, mask: Any) -> Callable:
    count = int(groups.max()) + 1

    def tie(weight: Any) -> Any:
        members = tf.constant(kept) * (1.0 if mask is None else tf.cast(mask, tf.float32))

        def summed(values: Any) -> Any:
            return tf.math.unsorted_segment_sum(values, tf.constant(groups), count)

        means = tf.math.divide_no_nan(
            summed(members * tf.cast(weight, tf.float32)), summed(members)
        )
        return tf.cast(tf.gather(means, tf.constant(groups)) * members, weight.dtype)

    return tie
