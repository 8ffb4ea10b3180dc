"""What a stage is; the defaults are the identity, so the base class is plain training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tfopt.compat import keras, tf
from tfopt.facts import Facts
from tfopt.spec import bounded, having, spec
from tfopt.stages.average import EMA, SWA
from tfopt.stages.distill import AnyTeacher, Teacher
from tfopt.stages.optimizers import Adam, Constant


@spec
class Stage:
    """Plain training, and the hooks by which other stages differ from it.

    `learning_rate` is the peak of `schedule`. `teacher` is a Teacher or Teachers.
    `test_each_epoch` prints the loss and the accuracy on the test split after every epoch. A
    stage of 0 epochs only rewrites the model.
    `average` is None or the EMA or SWA of the stage's weights, which takes the place of the
    last ones after the last epoch; what the epochs print is measured without it, what the
    report says with it.
    `steps_per_execution` is how many steps the devices make, of one epoch at most, before Python
    works again (progress bar, callbacks, SIGTERM). 0 chooses: on a TPU up to 512, elsewhere 16 in
    a stage of a thousand steps or more, else 1. On a mesh it is always 1.
    """

    quantizes: ClassVar[bool] = False
    # Whether it works on what was learned, and whether what it does ends with the next change.
    needs_trained: ClassVar[bool] = False
    goes_last: ClassVar[bool] = False
    # Whether it multiplies the channels of kernels, as folding BatchNormalization does.
    scales_channels: ClassVar[bool] = False

    name: str = "train"
    epochs: int = bounded(1, least=0)
    learning_rate: float = bounded(1e-3, above=0)
    schedule: Any = having("over", Constant)
    optimizer: Any = having("build", Adam)
    label_smoothing: float = bounded(0.0, least=0, below=1)
    teacher: AnyTeacher | None = None
    test_each_epoch: bool = False
    average: EMA | SWA | None = None
    steps_per_execution: int = bounded(0, least=0)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) for fields that don't fit together."""
        if self.average is not None and not self.epochs:
            yield "average", "None for a stage of 0 epochs"

    @property
    def renews_statistics(self) -> bool:
        """Whether BatchNormalization must measure anew, since training didn't keep up with it."""
        return self.average is not None

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Each single teacher; none without a `teacher`."""
        return self.teacher.each() if self.teacher else ()

    def prepare(
        self, model: "keras.Model", steps: int, samples: "tf.data.Dataset"
    ) -> "keras.Model":
        """Return `model` rewritten for training over `steps` steps in all.

        `samples` yields (examples, labels), batches of the train split without augmentation
        in a shuffled order, for whatever must be measured before the first step.
        """
        del steps, samples
        return model

    def callbacks(self, log_dir: Path) -> list:
        """Return the callbacks that the rewritten model needs, before all others."""
        del log_dir
        return []

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return the trained `model` without what `prepare` wrapped around its layers."""
        return model

    def rehearsed(self, model: "keras.Model") -> "keras.Model":
        """Return the prepared `model` finished, with the zeros that training would bring."""
        return self.finish(model)

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError where `after` isn't what this stage was asked for."""
