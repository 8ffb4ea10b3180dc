"""What a stage is; the defaults are the identity, so the base class is plain training."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tfopt.compat import keras
from tfopt.config import bounded, spec
from tfopt.facts import Facts
from tfopt.stages.distill import Teacher
from tfopt.stages.optimizers import Adam, Constant


def lacking(stage: Any, **methods: str) -> Iterator[tuple[str, str]]:
    """Yield each field of `stage` whose value is without the method that it is needed for."""
    for field, method in methods.items():
        if not callable(getattr(getattr(stage, field), method, None)):
            yield field, f"an object with {method}()"


@spec
class Stage:
    """Plain training, and the hooks by which other stages differ from it.

    `learning_rate` is the peak of `schedule`. `test_each_epoch` prints the loss and the
    accuracy on the test split after every epoch.
    """

    quantizes: ClassVar[bool] = False

    name: str = "train"
    epochs: int = bounded(1, least=1)
    learning_rate: float = bounded(1e-3, above=0)
    schedule: Any = dataclasses.field(default_factory=Constant)
    optimizer: Any = dataclasses.field(default_factory=Adam)
    label_smoothing: float = bounded(0.0, least=0, below=1)
    teacher: Teacher | None = None
    test_each_epoch: bool = False

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what can't serve as what it was given for."""
        yield from lacking(self, schedule="over", optimizer="build")

    def prepare(self, model: "keras.Model", steps: int) -> "keras.Model":
        """Return `model` rewritten for training over `steps` steps in all."""
        del steps
        return model

    def callbacks(self, log_dir: Path) -> list:
        """Return the callbacks that the rewritten model needs, before all others."""
        del log_dir
        return []

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return the trained `model` without what `prepare` wrapped around its layers."""
        return model

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError where `after` isn't what this stage was asked for."""
