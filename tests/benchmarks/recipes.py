"""Every technique as a recipe: what is done to a model within one budget of epochs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tfopt.export import (
    GPTQ,
    MSE,
    DynamicRange,
    EdgeQuantized,
    Float16,
    Float32,
    Int8,
    Int16x8,
    Percentile,
    WeightOnly,
)
from tfopt.fusion import Ensemble, GreedySoup
from tfopt.models import Saved
from tfopt.stages import (
    EMA,
    ERK,
    SGD,
    SWA,
    AttentionTransfer,
    Block,
    Cluster,
    CorrectBias,
    Cosine,
    Equalize,
    Features,
    First,
    Global,
    NofM,
    OneShotPrune,
    Polynomial,
    Prune,
    Quantize,
    Sensitivity,
    Shrink,
    Stage,
    Taylor,
    Teacher,
    Teachers,
)

# Bases that many recipes start from.
SHARED = ("trained", "begun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Stages and the variant of their result; `bases` says with what the first one starts.

    () is the untrained model. "trained" had the whole budget, and "begun" two thirds of it;
    "one" and "other" have shared the rest to go on from there, each in its own way, and
    "first half" and "second half" have shared the whole. `fused` makes the model from the
    bases' paths and the data.
    """

    bases: tuple[str, ...] = ()
    fused: Callable = lambda paths, _: Saved(path=paths[0])
    stages: list = field(default_factory=list)
    variant: Any = field(default_factory=Int8)
    seed: int = 0


def bases(budget: int) -> dict[str, Recipe]:
    """Return what the other recipes start from."""
    rest, half = budget - _begun(budget), budget // 2

    def made(epochs: int, *bases: str, seed: int = 0, **options: Any) -> Recipe:
        stages = [trained(epochs, **options)]
        return Recipe(bases=bases, stages=stages, variant=Float32(), seed=seed)

    return {
        "trained": made(budget),
        "begun": made(_begun(budget)),
        "one": made(rest // 2, "begun", learning_rate=0.03),
        "other": made(rest - rest // 2, "begun", learning_rate=0.01, seed=1),
        "first half": made(half),
        "second half": made(budget - half, seed=1),
    }


def recipes(budget: int, begun: Any) -> dict[str, Recipe]:
    """Return the recipes by the names that the tables give them; `begun` loads that base."""
    return {
        **_after_training(),
        **_fused(),
        **_begun_with(budget, begun),
        **_from_scratch(budget),
    }


def trained(epochs: int, learning_rate: float = 0.1, **options: Any) -> Stage:
    """Return plain training."""
    return Stage(
        epochs=epochs,
        learning_rate=learning_rate,
        schedule=Cosine(),
        optimizer=SGD(weight_decay=1e-4),
        **options,
    )


def _begun(budget: int) -> int:
    return round(budget * 2 / 3)


def _after_training() -> dict[str, Recipe]:
    def made(variant: Any, *stages: Any) -> Recipe:
        return Recipe(bases=("trained",), stages=list(stages), variant=variant)

    return {
        "float32": made(Float32()),
        "float16": made(Float16()),
        "dynamic range": made(DynamicRange()),
        "int8": made(Int8()),
        "int8, percentile": made(Int8(calibration=Percentile())),
        "int8, MSE": made(Int8(calibration=MSE())),
        "int8, equalized, biases corrected": made(Int8(), Equalize(), CorrectBias()),
        "int16 x 8": made(Int16x8()),
        "4 bit, OCTAV": made(EdgeQuantized()),
        "4 bit, GPTQ (Dense), float activations": made(
            EdgeQuantized(weights=GPTQ(), activations=WeightOnly())
        ),
        "one-shot 50%": made(Int8(), OneShotPrune(sparsity=0.5)),
        "one-shot 2:4": made(Int8(), OneShotPrune(pattern=NofM())),
    }


def _fused() -> dict[str, Recipe]:
    parts = ("one", "other")
    return {
        "soup of two fine-tunings, int8": Recipe(
            bases=("begun", *parts), fused=lambda paths, data: GreedySoup(models=paths, data=data)
        ),
        "ensemble of two, int8": Recipe(
            bases=("first half", "second half"), fused=lambda paths, _: Ensemble(models=paths)
        ),
    }


def _begun_with(budget: int, begun: Any) -> dict[str, Recipe]:
    """Return what takes the last third of the budget, two fifths of that in rounding."""
    rest = budget - _begun(budget)
    last = max(round(rest * 0.4), 1)

    def pruned(sparsity: float | None, **options: Any) -> Prune:
        return Prune(epochs=rest - last, sparsity=sparsity, learning_rate=0.03, **_SGD, **options)

    def made(*stages: Any, epochs: int = last, variant: Any = _INT8, **options: Any) -> Recipe:
        stages = (*stages, rounded(epochs, **options))
        return Recipe(bases=("begun",), stages=list(stages), variant=variant)

    def shared(epochs: int, **options: Any) -> Cluster:
        return Cluster(epochs=epochs, learning_rate=1e-3, schedule=Cosine(), **options)

    half = (rest - last) // 2
    return {
        "QAT": made(epochs=rest),
        "QAT 4 bit": made(epochs=rest, weights=4),
        "QAT int16 x 8": made(epochs=rest, activations=16, variant=Int16x8()),
        "pruned 50%, QAT": made(pruned(0.5)),
        "pruned 80%, QAT": made(pruned(0.8)),
        "pruned 80% ERK, QAT": made(pruned(0.8, allocation=ERK())),
        "pruned 80% global, QAT": made(pruned(0.8, allocation=Global())),
        "pruned 80% sensitivity, QAT": made(pruned(0.8, allocation=Sensitivity())),
        "pruned 90%, QAT": made(pruned(0.9, allocation=Sensitivity())),
        "pruned 2:4, QAT": made(pruned(None, pattern=NofM(), exclude=(First(),))),
        "pruned 80% in blocks of 4, QAT": made(pruned(0.8, pattern=Block())),
        "shrunk 50%, QAT": made(Shrink(epochs=rest - last, params=0.5, learning_rate=0.03, **_SGD)),
        "shrunk 50% by Taylor, QAT": made(
            Shrink(epochs=rest - last, params=0.5, score=Taylor(), learning_rate=0.03, **_SGD)
        ),
        "clustered 16, QAT": made(shared(rest - last)),
        "pruned 80%, clustered 16, QAT": made(
            Prune(epochs=rest - last - half, learning_rate=0.03, allocation=Global(), **_SGD),
            shared(half),
        ),
        "pruned 80%, teacher, QAT": made(
            pruned(0.8, allocation=Global(), teacher=Teacher(model=begun, weight=0.5))
        ),
        "pruned 80%, teacher's features, QAT": made(
            pruned(0.8, allocation=Global(), teacher=_also(begun, Features()))
        ),
        "pruned 80%, teacher's attention, QAT": made(
            pruned(0.8, allocation=Global(), teacher=_also(begun, AttentionTransfer()))
        ),
    }


def _from_scratch(budget: int) -> dict[str, Recipe]:
    last = max(round(budget * 2 / 15), 1)

    def sparse(sparsity: float, **options: Any) -> list:
        return [
            Prune(
                epochs=budget - last,
                sparsity=sparsity,
                learning_rate=0.1,
                growth=Polynomial(begin=0.15, end=0.75),
                allocation=Global(),
                **_SGD,
            ),
            rounded(last, **options),
        ]

    return {
        "averaged (EMA), int8": Recipe(stages=[trained(budget, average=EMA())]),
        "averaged (SWA), int8": Recipe(stages=[trained(budget, average=SWA())]),
        "sparse from scratch 80%, QAT": Recipe(stages=sparse(0.8)),
        "sparse from scratch 90%, QAT": Recipe(stages=sparse(0.9)),
        "sparse from scratch 95%, QAT": Recipe(stages=sparse(0.95)),
        "sparse from scratch 80%, QAT 4 bit": Recipe(stages=sparse(0.8, weights=4)),
    }


def _also(begun: Any, objective: Any) -> Teachers:
    """Return a teacher whose logits and hidden layers are compared."""
    return Teachers(
        members=(
            Teacher(model=begun, weight=0.5),
            Teacher(model=begun, weight=0.1, objective=objective),
        )
    )


_INT8 = Int8()
_SGD = {"schedule": Cosine(), "optimizer": SGD(weight_decay=1e-4)}


def rounded(epochs: int, **options: Any) -> Quantize:
    """Return quantization-aware training."""
    return Quantize(epochs=epochs, learning_rate=5e-4, schedule=Cosine(), **options)
