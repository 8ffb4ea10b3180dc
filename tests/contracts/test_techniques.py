"""Every technique on every preset: it delivers, reloads and exports, or says why it can't."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from tests.contracts.test_models import SHAPES
from tfopt.compat import keras
from tfopt.config import ConfigError
from tfopt.data import Spec
from tfopt.graph import rebuilt
from tfopt.models import PRESETS
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
)
from tfopt.testing import check_stage

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
    "blocks": lambda _: Prune(pattern=Block(), **HALF),
    "two_of_four": lambda _: Prune(pattern=NofM(), growth=AtOnce()),
    "global": lambda _: Prune(allocation=Global(), **HALF),
    "erk": lambda _: Prune(allocation=ERK(), **HALF),
    "sensitivity": lambda _: Prune(allocation=Sensitivity(batches=1), **HALF),
    "one_shot": lambda _: OneShotPrune(sparsity=0.4, batches=1),
    "shrink": lambda _: Shrink(params=0.8, multiple=1),
    "shrink_by_loss": lambda _: Shrink(macs=0.8, multiple=1, score=Taylor(batches=1)),
    "shrink_by_scale": lambda _: Shrink(macs=0.8, multiple=1, score=BatchNormScale()),
    "cluster": lambda _: Cluster(clusters=8),
    "four_bits": lambda _: Quantize(weights=4),
    "int16": lambda _: Quantize(activations=16),
    "equalize": lambda _: Equalize(),
    "correct_bias": lambda _: CorrectBias(batches=1),
}
# By technique, and by the preset where only that one can't.
REFUSED = {
    "attention_scores": "expected MultiHeadAttention layers in both models, received 0",
    ("mlp", "attention_transfer"): "expected a resolution that both models have, received none",
    ("mlp", "shrink_by_scale"): "expected a model with BatchNormalization that has a scale",
}
FAST = {"mlp", "ds_cnn_s"}


@dataclass(frozen=True)
class Copied:
    """A model as its own teacher."""

    model: object

    def load(self):
        return rebuilt(self.model)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in PRESETS
    ],
)
def preset(request):
    """A preset's name, the data that it is made for, and its model."""
    shape = SHAPES.get(request.param, (8, 8, 1))
    spec = Spec(shape=shape, class_names=("a", "b", "c", "d"), train_size=16)
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return request.param, spec, PRESETS[request.param](spec)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_technique(preset, technique):
    name, spec, model = preset
    refused = REFUSED.get(technique) or REFUSED.get((name, technique))
    stage = TECHNIQUES[technique](Copied(model))
    with pytest.raises(ConfigError, match=refused) if refused else nullcontext():
        check_stage(stage, rebuilt(model), spec=spec)
