"""What the loop of a stage asks of the devices that it trains on."""

import contextlib
from typing import Any

from tfopt import hosts
from tfopt.compat import keras, tf


class Whole:
    """Every replica of the strategy in scope has all of the model; see `Spread` for the other.

    `options` are what Keras's optimizers and metrics must be told.
    """

    options: dict[str, Any] = {}
    copies = 1

    def placed(self, model: "keras.Model", teachers: list) -> tuple["keras.Model", list]:
        """Return `model` and its `teachers` as they are on the devices."""
        return model, teachers

    def scope(self) -> contextlib.AbstractContextManager:
        """Return the scope for making what is trained beside the model."""
        return contextlib.nullcontext()

    def callbacks(self) -> list:
        """Return what must happen on the devices while a stage trains, before all else."""
        return []

    def steps_per_execution(self, most: int) -> int:
        """Return how many steps may go at once, `most` or fewer."""
        return most

    def gather(self) -> None:
        """Bring the weights from the devices into the model that was `placed`."""

    def scatter(self) -> None:
        """Bring the weights of the model that was `placed` to the devices."""

    def train(self, part: Any, batch_size: int) -> Any:
        """Return what `fit` is fed with; `part(index, count)` is what a host has of it."""
        return hosts.fed(part, batch_size)

    def finite(self, splits: Any, split: str) -> tuple[Any, int | None]:
        """Return what is fed of `split`, and its steps where Keras can't tell them."""
        fed = hosts.fed(lambda *host: getattr(splits.of_host(*host), split), splits.batch_size)
        return fed, steps_of(splits, split) if hosts.are_several() else None

    def refusals(self, fitted: Any = None) -> contextlib.AbstractContextManager:
        """Return what turns a refusal of these devices, before a step was made, into an error."""
        del fitted
        return contextlib.nullcontext()

    def bytes_each(self, fitted: "keras.Model") -> dict | None:
        """Return what each device holds of what is `fitted`, where that isn't all of it."""
        del fitted
        return None


WHOLE = Whole()


def steps_of(splits: Any, split: str) -> int:
    """Return the number of batches of a finite `split`."""
    stream: tf.data.Dataset = getattr(splits, split)
    return int(stream.cardinality())
