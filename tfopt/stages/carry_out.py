"""One stage from the model that it is given to the one that it delivers, checked."""

import time
from dataclasses import dataclass
from typing import Any

from tfopt.compat import keras
from tfopt.facts import Facts, measure
from tfopt.stages.average import recompute_statistics
from tfopt.stages.base import Stage
from tfopt.stages.hold import check_held
from tfopt.stages.precision import for_stage, for_teachers, in_full
from tfopt.stages.train import Place, train


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a stage made of its model, and what is true of it.

    `seconds` are those of preparing and of all epochs, in whichever process they were trained;
    `waited` is the share of the epochs' time that training waited for its data, `mesh` what
    each device held, None where each held all.
    """

    model: "keras.Model"
    before: Facts
    after: Facts
    seconds: float
    waited: float
    history: list[dict]
    mesh: dict | None


def carry_out(
    stage: Stage, model: "keras.Model", teachers: list, splits: Any, place: Place
) -> Delivered:
    """Prepare `model`, train and finish it as `stage` says, and check what came of it.

    Must run in the strategy's scope. Raises RunError where the stage isn't what was asked for,
    or where it lost what an earlier one had won.
    """
    before, began = measure(model), time.perf_counter()
    model = for_stage(stage, model, mixed=place.mixed)
    teachers = for_teachers(stage, teachers, mixed=place.mixed)
    prepared = stage.prepare(model, stage.epochs * splits.steps_per_epoch, splits.samples)
    preparing = time.perf_counter() - began
    trained = train(stage, prepared, teachers, splits, place)
    finished = in_full(_finished(stage, prepared, splits.augmented))
    after = measure(finished)
    stage.check(before, after)
    check_held(stage.name, before, after, trained=place.trained, scaled=stage.scales_channels)
    # Not the clock's difference: a resumed stage has trained in several processes.
    history = trained.history
    seconds = sum(epoch["seconds"] for epoch in history)
    waited = sum(epoch["waited"] for epoch in history) / seconds if history else 0.0
    return Delivered(finished, before, after, preparing + seconds, waited, history, trained.mesh)


def _finished(stage: Stage, prepared: "keras.Model", augmented: Any) -> "keras.Model":
    """Return the finished model, with the statistics of the weights that it ends with."""
    if stage.renews_statistics and stage.quantizes:
        # Before: afterwards they are folded into the kernels.
        recompute_statistics(prepared, augmented)
    finished = stage.finish(prepared)
    if stage.renews_statistics and not stage.quantizes:
        # Not before: a pruning wrapper moves its masks when it sees the data.
        recompute_statistics(finished, augmented)
    return finished
