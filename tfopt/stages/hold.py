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
    are compared. Kernels are told by their names and shapes, those that were rewritten by their
    size in all: what was rebuilt in another size is what its own stage asked for. `trained` is
    that of `hold`.
    """
    kept = {(kernel.key, kernel.shape): kernel for kernel in after.kernels}
    renamed = []
    for kernel in before.kernels:
        if not trained and _is_initial(kernel.distinct_total, kernel.zeros > 0):
            continue
        now = kept.pop((kernel.key, kernel.shape), None)
        renamed += [] if now else [kernel]
        for what, had, has in _losses(kernel, now, scaled) if now else ():
            raise _lost(stage, had, what, f"layer {kernel.layer!r}", has)
    # Those that a rewriting took apart, as attention's, are told by their size in all.
    had, has = (sum(kernel.zeros for kernel in kernels) for kernels in (renamed, kept.values()))
    sizes = [sum(kernel.size for kernel in kernels) for kernels in (renamed, kept.values())]
    if sizes[0] == sizes[1] and is_sparse(had, sizes[0]) and has < had:
        layers = ", ".join(dict.fromkeys(kernel.layer for kernel in renamed))
        raise _lost(stage, had, "zeros", f"the layers {layers}", has)


def _lost(stage: str, had: int, what: str, where: str, has: int) -> RunError:
    return RunError(
        f"stage {stage!r}: expected the {had:,} {what} of {where} to stay, measured {has:,}; "
        "the stage lost what an earlier one won."
    )


def _is_initial(distinct: int, has_zeros: bool) -> bool:
    """Return whether a kernel of so many values may be a constant, or an identity."""
    return distinct <= 1 + has_zeros


def _losses(before: Kernel, now: Kernel, scaled: bool) -> Iterator[tuple[str, int, int]]:
    if is_sparse(before.zeros, before.size) and now.zeros < before.zeros:
        yield "zeros", before.zeros, now.zeros
    compared = [
        ("distinct values per channel", before.channel_nonzeros, before.distinct, now.distinct)
    ]
    if not scaled:
        whole = before.nonzeros, before.distinct_total, now.distinct_total
        compared.insert(0, ("distinct values", *whole))
    # Pruning a kernel of shared values adds 0 to these.
    added = int(now.zeros > before.zeros)
    for what, nonzeros, had, has in compared:
        if is_shared(had - (before.zeros > 0), nonzeros) and has > had + added:
            yield what, had, has


def is_sparse(zeros: int, size: int) -> bool:
    """Return whether so many zeros were put there by a stage."""
    return zeros > _SPARSE * size


def is_shared(distinct: int, weights: int) -> bool:
    """Return whether so few values of so many weights, zeros aside, were put there by a stage."""
    return weights > 1 and distinct <= _SHARED * weights


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
    if is_shared(int(np.count_nonzero(distinct)), int(np.count_nonzero(values))):
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
