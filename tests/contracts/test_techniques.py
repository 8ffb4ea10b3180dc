"""Every technique on every model: it delivers, reloads and exports, or says why it can't."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.contracts.test_models import MODELS as IMAGE_MODELS
from tests.contracts.test_models import SHAPES as IMAGE_SHAPES
from tfopt.checkpoint import save_model
from tfopt.compat import keras
from tfopt.data import Spec, from_arrays
from tfopt.errors import ConfigError
from tfopt.fusion import Ensemble, GreedySoup, MeanProbabilities, UniformSoup
from tfopt.graph import rebuilt
from tfopt.stages import (
    EMA,
    ERK,
    SWA,
    AtOnce,
    AttentionScores,
    AttentionTransfer,
    BatchNormScale,
    Block,
    Cluster,
    CorrectBias,
    Equalize,
    Features,
    Global,
    NofM,
    OneShotPrune,
    Prune,
    Quantize,
    Sensitivity,
    Shrink,
    Stage,
    Taylor,
    Teacher,
    Teachers,
)
from tfopt.testing import check_stage

L = keras.layers
SLOW = [pytest.mark.slow]


def transformer(spec):
    """An encoder of one block, over (positions, features)."""
    inputs = keras.Input(spec.shape, name="input")
    attended = L.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = L.LayerNormalization(name="norm1")(L.Add(name="add1")([inputs, attended]))
    hidden = L.Dense(16, "relu", name="up")(x)
    x = L.Add(name="add2")([x, L.Dense(spec.shape[-1], name="down")(hidden)])
    x = L.GlobalAveragePooling1D(name="pool")(L.LayerNormalization(name="norm2")(x))
    return keras.Model(inputs, L.Dense(spec.classes, name="logits")(x), name="transformer")


def recurrent(spec):
    """Two recurrent layers, one of them in both directions, over (time steps, features)."""
    inputs = keras.Input(spec.shape, name="input")
    x = L.Bidirectional(L.LSTM(4, return_sequences=True), name="both")(inputs)
    return keras.Model(inputs, L.Dense(spec.classes, name="logits")(L.GRU(8, name="gru")(x)))


MODELS = {**IMAGE_MODELS, "transformer": transformer, "recurrent": recurrent}
HALF = {"sparsity": 0.4, "growth": AtOnce()}
TECHNIQUES = {
    "ema": lambda _: Stage(average=EMA()),
    "swa": lambda _: Stage(average=SWA(start=0.0)),
    "teacher": lambda itself: Stage(teacher=Teacher(model=itself)),
    "cached_teacher": lambda itself: Stage(teacher=Teacher(model=itself, cached=True)),
    "features": lambda itself: Stage(teacher=Teacher(model=itself, objective=Features())),
    "attention_transfer": lambda itself: Stage(
        teacher=Teacher(model=itself, objective=AttentionTransfer())
    ),
    "attention_scores": lambda itself: Stage(
        teacher=Teacher(model=itself, objective=AttentionScores())
    ),
    "two_teachers": lambda itself: Stage(
        teacher=Teachers(
            members=(
                Teacher(model=itself, weight=0.3, cached=True),
                Teacher(model=Ensemble(models=(itself, itself)), weight=0.7),
            )
        )
    ),
    "prune": lambda _: Prune(**HALF),
    "blocks": lambda _: Prune(pattern=Block(), **HALF),
    "two_of_four": lambda _: Prune(pattern=NofM(), growth=AtOnce()),
    "global": lambda _: Prune(allocation=Global(), **HALF),
    "erk": lambda _: Prune(allocation=ERK(), **HALF),
    "sensitivity": lambda _: Prune(allocation=Sensitivity(batches=1), **HALF),
    "one_shot": lambda _: OneShotPrune(sparsity=0.4, batches=1),
    "shrink": lambda _: Shrink(params=0.8, multiple=1),
    "shrink_by_loss": lambda _: Shrink(macs=0.8, multiple=1, score=Taylor(batches=1)),
    "shrink_by_scale": lambda _: Shrink(macs=0.8, multiple=1, score=BatchNormScale()),
    "quantize": lambda _: Quantize(),
    "cluster": lambda _: Cluster(clusters=8),
    "four_bits": lambda _: Quantize(weights=4),
    "int16": lambda _: Quantize(activations=16),
    "equalize": lambda _: Equalize(),
    "correct_bias": lambda _: CorrectBias(batches=1),
}
# By technique, and by the model where only that one can't.
REFUSED = {
    "attention_scores": "expected MultiHeadAttention layers in both models, received 0",
    ("mlp", "attention_transfer"): "expected a resolution that both models have, received none",
    ("mlp", "shrink_by_scale"): "expected a model with BatchNormalization that has a scale",
    ("transformer", "attention_scores"): None,
    ("transformer", "attention_transfer"): "a resolution that both models have, received none",
    ("transformer", "shrink_by_scale"): "expected a model with BatchNormalization that has a scale",
    ("recurrent", "attention_transfer"): "a resolution that both models have, received none",
    ("recurrent", "one_shot"): "expected a sparsity that its 1 kernels .Dense. can give",
    ("recurrent", "shrink"): "expected channels that can be removed, found none",
    ("recurrent", "shrink_by_loss"): "expected channels that can be removed, found none",
    ("recurrent", "shrink_by_scale"): "expected a model with BatchNormalization that has a scale",
    ("recurrent", "equalize"): "expected two layers with kernels and at most ReLU or pooling",
}
FUSIONS = {
    "ensemble": lambda models, _: Ensemble(models=models),
    "ensemble_of_probabilities": lambda models, _: Ensemble(
        models=models, output=MeanProbabilities()
    ),
    "uniform_soup": lambda models, data: UniformSoup(models=models, data=data),
    "greedy_soup": lambda models, data: GreedySoup(models=models, data=data),
}
SHAPES = {**IMAGE_SHAPES, "transformer": (6, 8), "recurrent": (5, 8)}
FAST = {"ds_cnn_shallow"}
CLASSES = ("a", "b", "c", "d")


def each_model_by(what, fast=()):
    """Every model x every one of `what`, slow but for those of FAST models and `fast`."""
    return [
        pytest.param(name, one, marks=[] if name in FAST or (name, one) in fast else SLOW)
        for name in MODELS
        for one in what
    ]


@dataclass(frozen=True)
class Copied:
    """A model as its own teacher."""

    model: object

    def load(self):
        return rebuilt(self.model)


@dataclass(frozen=True)
class Noise:
    """A source of data of the spec's shape."""

    spec: Spec

    def load(self, batch_size):
        examples = np.random.default_rng(0).normal(size=(16, *self.spec.shape))
        pair = examples.astype(np.float32), np.arange(16) % 4
        return from_arrays(
            train=pair, validation=pair, test=pair, class_names=CLASSES, batch_size=8
        )


@pytest.fixture(scope="module")
def model(request):
    """A model, and the data that it is made for."""
    spec = Spec(shape=SHAPES.get(request.param, (8, 8, 1)), class_names=CLASSES, train_size=16)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return request.param, spec, MODELS[request.param](spec)


@pytest.mark.parametrize(
    ("model", "technique"),
    each_model_by(TECHNIQUES, fast={("transformer", "attention_scores")}),
    indirect=["model"],
    scope="module",
)
def test_technique(model, technique):
    name, spec, made = model
    refused = REFUSED.get((name, technique), REFUSED.get(technique))
    stage = TECHNIQUES[technique](Copied(made))
    with pytest.raises(ConfigError, match=refused) if refused else nullcontext():
        check_stage(stage, rebuilt(made), spec=spec)


@pytest.mark.parametrize(
    ("model", "fusion"), each_model_by(FUSIONS), indirect=["model"], scope="module"
)
def test_fusion_is_a_model_that_is_exported(model, fusion, tmp_path):
    _, spec, made = model
    other, rng = rebuilt(made), np.random.default_rng(0)
    other.set_weights([w * rng.uniform(0.9, 1.1, w.shape) for w in made.get_weights()])
    paths = str(tmp_path / "one.h5"), str(tmp_path / "other.h5")
    for member, path in zip((made, other), paths, strict=True):
        save_model(member, Path(path))
    fused = FUSIONS[fusion](paths, Noise(spec))(spec)
    check_stage(Stage(epochs=0), fused, spec=spec)
