"""What earlier stages won stays: zeros stay zero and shared values stay shared.

The constraint is measured from the weights themselves and imposed on the variables, so that
it holds after every optimizer step, on every replica and after a resume, whatever the stage.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfopt.compat import keras, tf
from tfopt.errors import RunError
from tfopt.facts import Facts, Kernel, kernel_variables, measure

# A float kernel has no exact zeros by itself, and hardly two equal values; more than these
# shares were put there. Of a large one many are equal, most of all when it was stored in 16
# bits, but in no channel so few that they make a codebook of one byte.
_SPARSE = 0.02
_SHARED = 0.5
_CODEBOOK = 256


class Counts(NamedTuple):
    """What the kernel of a file tells of the fields of `facts.Kernel`."""

    layer: str
    size: int
    zeros: int
    distinct: int


def hold(model: "keras.Model", *, trained: bool) -> None:
    """Make every later optimizer step of `model` keep its zeros and its shared values.

    Of a model that wasn't `trained`, kernels that are constant or an identity are an
    initializer's, and free to become anything; others come from a file that the user loads.
    Weights that are equal stay equal, at the mean of what the step made of them. Those that a
    pruning wrapper masks are left out, since the step moves them away from zero.
    """
    masks, variables = _masks(model), kernel_variables(model)
    for kernel in measure(model).kernels:
        if not trained and is_initial(kernel.distinct_total, kernel.zeros > 0):
            continue
        # In mixed precision Keras wraps the variable, and asks the one inside.
        variable = getattr(variables[kernel.key], "_variable", variables[kernel.key])
        constraint = _constraint(kernel, variable.numpy(), masks.get(kernel.key))
        copies = getattr(variable, "values", (variable,))  # one on each replica
        given = copies[0]._constraint
        users = getattr(given, "users", given)
        for held in {id(v): v for v in (variable, *copies)}.values():
            held._constraint = _Both(users, constraint) if constraint else users


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
        if not trained and is_initial(kernel.distinct_total, kernel.zeros > 0):
            continue
        now = kept.pop((kernel.key, kernel.shape), None)
        renamed += [] if now else [kernel]
        for what, had, has in _losses(kernel, now, scaled) if now else ():
            raise _lost(stage, had, what, f"layer {kernel.layer!r}", has)
    # Those that a rewriting took apart, as attention's, are told by their size in all.
    made = [kernel for kernel in kept.values() if not is_affine(kernel)]
    _check_rewritten(stage, renamed, made)


def lost_on_the_way(
    held: Iterable[Kernel], stored: Iterable[Counts]
) -> Iterator[tuple[str, str, int, int]]:
    """Yield where, what, and how much of it was `held` and is `stored`, of what a file has lost.

    Rounding adds zeros and makes values equal: it takes nothing away. Layers that are found in
    another size, as where the converter has taken one apart, are compared with each other.
    """
    by_layer = [defaultdict(list), defaultdict(list)]
    for kernels, found in zip((held, stored), by_layer, strict=True):
        for kernel in kernels:
            found[kernel.layer].append(kernel)
    before, now = by_layer
    sizes = [{name: _size(kernels) for name, kernels in found.items()} for found in by_layer]
    same = [name for name, size in sizes[0].items() if sizes[1].get(name) == size]
    pairs = [(f"layer {name!r}", before.pop(name), now.pop(name)) for name in same]
    rest = (sum(found.values(), []) for found in by_layer)
    for where, had, has in (*pairs, (f"the layers {', '.join(before)}", *rest)):
        for loss in _losses_together(had, has, added=0):
            yield where, *loss


def _check_rewritten(stage: str, before: list[Kernel], made: list[Kernel]) -> None:
    # A rewriting may have brought zeros, one value more.
    for what, had, has in _losses_together(before, made, added=1):
        where = f"the layers {', '.join(dict.fromkeys(kernel.layer for kernel in before))}"
        raise _lost(stage, had, what, where, has)


def _losses_together(
    before: list[Kernel], made: Sequence[Kernel | Counts], *, added: int
) -> Iterator[tuple[str, int, int]]:
    """Yield what is lost of kernels that are told by their size in all; values may be `added`."""
    if not before or _size(before) != _size(made):
        return
    had, has = (sum(kernel.zeros for kernel in kernels) for kernels in (before, made))
    if is_sparse(had, _size(before)) and has < had:
        yield "zeros", had, has
    had, has = (max(kernel.distinct for kernel in kernels) for kernels in (before, made))
    if all(map(shares_values, before)) and has > had + added:
        yield "distinct values per channel", had, has


def _size(kernels: Sequence[Kernel | Counts]) -> int:
    return sum(kernel.size for kernel in kernels)


def _lost(stage: str, had: int, what: str, where: str, has: int) -> RunError:
    return RunError(
        f"stage {stage!r}: expected the {had:,} {what} of {where} to stay, measured {has:,}; "
        "the stage lost what an earlier one won."
    )


def is_initial(distinct: int, has_zeros: bool) -> bool:
    """Return whether a kernel of so many values may be a constant, or an identity."""
    return distinct <= 1 + has_zeros


def _losses(before: Kernel, now: Kernel, scaled: bool) -> Iterator[tuple[str, int, int]]:
    if is_sparse(before.zeros, before.size) and now.zeros < before.zeros:
        yield "zeros", before.zeros, now.zeros
    compared = [
        ("distinct values per channel", before.channel_nonzeros, before.distinct, now.distinct)
    ]
    if not scaled and not is_affine(before):
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
    return weights > 1 and distinct <= min(_SHARED * weights, _CODEBOOK)


def shares_values(kernel: Kernel) -> bool:
    """Return whether a stage has put so few values into each channel of `kernel`."""
    return is_shared(kernel.distinct - (kernel.zeros > 0), kernel.channel_nonzeros)


def is_affine(kernel: Kernel) -> bool:
    """Return whether `kernel` only scales each channel, as what becomes of a normalisation does.

    Such factors may well be alike, and no stage made them so.
    """
    return kernel.size == kernel.channels and kernel.name == "depthwise_kernel"


class _Both:
    """The constraint that the user gave a variable, if any, and then what holds it."""

    def __init__(self, users: Callable | None, ours: Callable) -> None:
        self.users, self._ours = users, ours

    def __call__(self, weight: Any) -> Any:
        return self._ours(self.users(weight) if self.users else weight)


def _masks(model: "keras.Model") -> dict[str, Any]:
    """Return the mask of each kernel that a wrapper prunes, (kernel's shape) of 0 and 1."""
    variables = {id(weight): name for name, weight in kernel_variables(model).items()}
    wrappers = [layer.pruning_vars for layer in model.layers if hasattr(layer, "pruning_vars")]
    return {variables[id(weight)]: mask for pairs in wrappers for weight, mask, *_ in pairs}


def _constraint(kernel: Kernel, values: np.ndarray, mask: Any) -> Callable | None:
    zeros = values == 0
    sparse = is_sparse(kernel.zeros, kernel.size)
    kept = (~zeros if sparse else np.ones_like(zeros)).astype(np.float32)
    beside = kernel.zeros > 0
    of_all = is_shared(kernel.distinct_total - beside, kernel.nonzeros)
    by_channel = is_shared(kernel.distinct - beside, kernel.channel_nonzeros)
    if by_channel or (of_all and not is_affine(kernel)):
        groups = np.unique(values, return_inverse=True)[1]
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
