"""The teacher: an objective that any stage may train against."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.spec import bounded, having, spec
from tfopt.stages.objectives import Logits


@spec
class AnyTeacher:
    """What a stage's `teacher` is: a `Teacher` or several, as `Teachers`."""

    def each(self) -> "tuple[Teacher, ...]":
        """Return the teachers, one or more."""
        raise NotImplementedError


@spec
class Teacher(AnyTeacher):
    """A trained model that the student shall be near to, while it learns the labels.

    It is that of the earlier stage named `stage` or, where `model` is given, what its `load()`
    returns, as with `models.Saved`; it must take examples as the data gives them, normalised.
    To the hard loss comes `weight` times the mean distance by `objective`: `Logits`, `Features`,
    `AttentionTransfer` or `AttentionScores`. Validation loss is the hard loss alone, so that it
    compares between stages. `cached` computes the teacher's logits for the training examples
    once and keeps them on disk, so that training never runs it; that needs data without
    augmentation.
    """

    stage: str = "train"
    model: Any = None
    weight: float = bounded(1.0, above=0)
    objective: Any = having("distance", Logits)
    cached: bool = False

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        if self.model is not None and not callable(getattr(self.model, "load", None)):
            yield "model", "an object with load(), such as models.Saved(path=FILE)"
        if self.cached and not isinstance(self.objective, Logits):
            yield "cached", "False where hidden layers are compared: only logits are kept"

    @property
    def source(self) -> tuple:
        """What tells one teacher's model from another's."""
        return (self.stage, None) if self.model is None else ("", self.model)

    def each(self) -> "tuple[Teacher, ...]":
        """Return this one alone."""
        return (self,)

    def load(self, stage: Callable[[str], "keras.Model"]) -> "keras.Model":
        """Return the model; `stage(name)` loads that of an earlier stage."""
        return stage(self.stage) if self.model is None else self.model.load()


@spec
class Teachers(AnyTeacher):
    """Several teachers at once, whose weighted distances are added up.

    Those with one source are one model that runs once, so that its logits and its hidden
    layers can be compared at the price of one.
    """

    members: tuple[Teacher, ...] = ()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        if not self.members:
            yield "members", "at least one Teacher"

    def each(self) -> tuple[Teacher, ...]:
        """Return the members."""
        return tuple(self.members)


def loaded(teachers: Sequence[Teacher], stage: Callable[[str], "keras.Model"]) -> list:
    """Return the models of `teachers`, one and the same where their sources are.

    `stage(name)` loads that of an earlier stage.
    """
    models: list = []
    for teacher in teachers:
        same = (m for t, m in zip(teachers, models, strict=False) if t.source == teacher.source)
        models.append(next(same, None) or teacher.load(stage))
    return models


def attached(
    stage: str, student: "keras.Model", teachers: Sequence[Teacher], models: Sequence, splits: Any
) -> Any:
    """Return the Distilled model of `student` and the `models` of `teachers`.

    Raises ConfigError where a teacher doesn't fit the student or its logits can't be kept.
    """
    # Deferred, since a subclass of keras.Model would load TensorFlow with every config.
    from tfopt.stages.distilled import Distilled

    if splits.in_order is None and any(teacher.cached for teacher in teachers):
        raise ConfigError(
            f"stage {stage!r}, teacher.cached: expected data whose training examples are always "
            "the same, received augmented ones, of which a teacher must see every change; set "
            "cached to False or config.data.augment to None."
        )
    return Distilled(stage, student, teachers, models)
