"""The one training loop: the only compile and fit."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfopt import hosts, preemption
from tfopt.checkpoint import EpochCheckpoints
from tfopt.compat import keras, tf
from tfopt.errors import RunError
from tfopt.stages.base import Stage
from tfopt.stages.devices import WHOLE, Whole
from tfopt.stages.kept import kept_logits
from tfopt.stages.ready import ready
from tfopt.stages.waits import Waits

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stage stands in the run that has `workdir`.

    `first_epoch` counts the epochs of the stages before, so that no two stages see the data in
    the same order; `trained` says whether the stage's model was trained before; learning rates
    are multiplied by `scale`; `mixed` lets stages without quantization compute in bfloat16.
    `mesh` is None or the dtensor.Mesh over which models are spread. `logger` is None or, on the
    host that writes, a `loggers.Logger`; with `profile` there is a profile beside its curves.
    """

    workdir: Path
    first_epoch: int = 0
    trained: bool = False
    scale: float = 1.0
    mixed: bool = False
    mesh: Any = None
    logger: Any = None
    profile: bool = False

    def logs(self, stage: Stage) -> Path:
        """Return the folder of what TensorBoard shows of `stage`."""
        return self.workdir / "tensorboard" / stage.name

    def checkpoints(self, stage: Stage) -> Path:
        """Return the folder of the last epoch of `stage`, until its model is saved."""
        return self.workdir / stage.name / "epochs"

    @property
    def logits(self) -> Path:
        """The folder of what cached teachers say."""
        return self.workdir / "teachers"


@dataclass(frozen=True, slots=True)
class Trained:
    """What each epoch measured, and the bytes on each device where a mesh has trained."""

    history: list[dict]
    mesh: dict | None = None


def train(stage: Stage, model: "keras.Model", teachers: list, splits: Any, place: Place) -> Trained:
    """Fit `model`, which `stage.prepare` returned, and return what was measured.

    `teachers` are the models of `stage.teachers`. Must run in the strategy's scope. Goes on
    after the last epoch that `place` holds. The zeros and the shared values that `model` comes
    with stay, see `hold`. With `stage.average` the epochs measure the weights as they are
    trained, and `model` ends with their average. What a mesh can't train goes on without it.
    Raises RunError when the loss is not finite.
    """
    if not stage.epochs:
        return Trained([])
    if place.mesh is None:
        return _trained(stage, model, teachers, splits, place, WHOLE)
    # Deferred, since its callbacks are subclasses of Keras's: configs must not load TensorFlow.
    from tfopt.stages.spread import CannotSpreadError, Spread, why_not

    refused = why_not(stage, model, teachers)
    if not refused:
        try:
            return _trained(stage, model, teachers, splits, place, Spread(place.mesh))
        except CannotSpreadError as error:
            refused = str(error)
    _LOG.warning("stage %s: goes on without the mesh, which %s.", stage.name, refused)
    return _trained(stage, model, teachers, splits, place, WHOLE)


def _trained(
    stage: Stage, model: "keras.Model", teachers: list, splits: Any, place: Place, on: Whole
) -> Trained:
    from tfopt.stages import callbacks
    from tfopt.stages.profile import Profile

    options: dict[str, Any] = {"trained": place.trained, "scale": place.scale, "on": on}
    with on.refusals():
        fitted = ready(stage, model, teachers, splits, **options)
    steps = splits.steps_per_epoch
    state = {"model": model, "optimizer": fitted.optimizer, **_learned(fitted)}
    averages = _averages(stage, model, steps)
    if averages:
        state["averages"] = averages[0].variables
    checkpoints = EpochCheckpoints(place.checkpoints(stage), hosts.is_chief(), **state)
    history, made = _restored(stage, checkpoints, fitted.optimizer, steps)
    on.scatter()
    waits = Waits(on.copies)
    profiles = [Profile(place.logs(stage))] if place.profile and hosts.is_chief() else []
    watchers = [
        *stage.callbacks(place.logs(stage)),
        *on.callbacks(),
        *averages,
        callbacks.StopAtNaN(stage.name),
        *profiles,
        *([callbacks.TestLine(*on.finite(splits, "test"))] if stage.test_each_epoch else []),
        _curves(stage, model, splits, place, history, waits),
        callbacks.SaveEpoch(checkpoints, history),
        callbacks.SaveWhenPreempted(checkpoints, history, steps, on.gather),
    ]
    # A bar, or a line an epoch for a log file.
    verbose: Any = (1 if sys.stdout.isatty() else 2) if hosts.is_chief() else 0
    kept = _kept(stage, teachers, splits, place.logits)
    validation, steps_of_it = on.finite(splits, "validation")

    def fit(epochs: int, skipped: int = 0) -> None:
        first = place.first_epoch + len(history)

        def own(*host: int) -> "tf.data.Dataset":
            return waits.watched(splits.of_host(*host).train(first, *kept).skip(skipped))

        try:
            fitted.fit(
                on.train(own, splits.batch_size),
                validation_data=validation,
                validation_steps=steps_of_it,
                initial_epoch=len(history),
                epochs=epochs,
                steps_per_epoch=steps - skipped,
                callbacks=watchers,
                verbose=verbose,
            )
        finally:
            for profile in profiles:
                profile.end()

    with preemption.awaited(), on.refusals(fitted):
        if made:
            fit(len(history) + 1, made)
        if len(history) < stage.epochs:
            fit(stage.epochs)
    on.gather()
    for average in averages:
        average.adopt()
    return Trained(history, on.bytes_each(fitted))


def _averages(stage: Stage, model: "keras.Model", steps: int) -> list:
    """Return the callback that averages the weights of `model`, if `stage` wants one."""
    from tfopt.stages.callbacks import Averages

    return [Averages(stage.average, model, stage.epochs * steps)] if stage.average else []


def _curves(
    stage: Stage, model: "keras.Model", splits: Any, place: Place, history: list, waits: Waits
) -> Any:
    """Return the callback that tells `place` and `history` what the epochs of `stage` measure."""
    from tfopt.stages.callbacks import Curves

    examples = splits.steps_per_epoch * splits.batch_size
    return Curves(model, stage.name, place.logger, place.first_epoch, examples, history, waits)


def _restored(
    stage: Stage, checkpoints: EpochCheckpoints, optimizer: Any, steps: int
) -> tuple[list[dict], int]:
    """Return the history that `checkpoints` hold, and the steps that follow its last epoch.

    Raises RunError where hosts differ, or where epochs were of another number of `steps`.
    """
    from tfopt.stages.callbacks import step_of

    history, made = checkpoints.restore()
    _check_alike(stage.name, len(history))
    _check_steps(stage.name, step_of(optimizer), len(history) * steps + made)
    if history or made:
        _LOG.info("stage %s: goes on after epoch %d, step %d.", stage.name, len(history), made)
    return history, made


def _check_alike(stage: str, epochs: int) -> None:
    """Raise RunError unless all hosts go on after the same epoch."""
    said = hosts.all_say(epochs)
    if len(set(said)) > 1:
        raise RunError(
            f"stage {stage!r}: expected the same finished epochs on all hosts, received {said}; "
            "give them a --workdir on one disk that all of them share."
        )


def _check_steps(stage: str, made: int, expected: int) -> None:
    """Raise RunError unless the restored epochs were of as many steps as they are now."""
    if made != expected:
        raise RunError(
            f"stage {stage!r}: expected {expected} steps in the finished epochs, received {made}, "
            "of another global batch; go on with as many replicas as it was begun with, or choose "
            "another --workdir."
        )


def _kept(stage: Stage, teachers: list, splits: Any, folder: Path) -> list:
    """Return the logits of each cached teacher, kept in `folder`."""
    pairs = zip(stage.teachers, teachers, strict=True)
    return [kept_logits(teacher, splits, folder) for each, teacher in pairs if each.cached]


def _learned(fitted: Any) -> dict:
    """Return what `fitted` learns beside its student's weights, by name."""
    projections = getattr(fitted, "projections", None)
    return {"projections": projections} if projections else {}
