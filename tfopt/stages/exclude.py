"""The layers that a stage leaves alone: its `exclude`, names, patterns or roles."""

from collections.abc import Iterator, Sequence
from typing import Any

from tfopt.errors import ConfigError, matches, nearest
from tfopt.facts import Kernel
from tfopt.spec import spec


@spec
class First:
    """The layer with the first kernel in the order of computation."""

    def finds(self, kernels: Sequence[Kernel]) -> set[str]:
        """Return the names of the layers that are meant."""
        return {kernel.layer for kernel in kernels[:1]}


@spec
class Last:
    """The layer with the last kernel in the order of computation."""

    def finds(self, kernels: Sequence[Kernel]) -> set[str]:
        """Return the names of the layers that are meant."""
        return {kernel.layer for kernel in kernels[-1:]}


def excluded(stage: Any, kernels: Sequence[Kernel]) -> set[str]:
    """Return the layers of `kernels` that `stage.exclude` means."""
    return set().union(*(_found(item, kernels) for item in stage.exclude))


def exclude_rules(stage: Any) -> Iterator[tuple[str, str]]:
    """Yield what is impossible whatever the model."""
    if not all(isinstance(e, str) or hasattr(e, "finds") for e in stage.exclude):
        yield "exclude", "names or patterns of layers, First() or Last()"


def check_exclude(stage: Any, kernels: Sequence[Kernel]) -> None:
    """Raise ConfigError where something in `stage.exclude` means none of `kernels`."""
    names = [kernel.layer for kernel in kernels]
    for item in stage.exclude:
        if not _found(item, kernels):
            raise ConfigError(
                f"stage {stage.name!r}, exclude: expected names or patterns of layers with a "
                f"kernel, received {item!r}; {nearest(item, names)}"
            )


def _found(item: Any, kernels: Sequence[Kernel]) -> set[str]:
    if isinstance(item, str):
        return {kernel.layer for kernel in kernels if matches(kernel.layer, (item,))}
    return item.finds(kernels)
