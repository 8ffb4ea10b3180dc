"""Every variant of every model: converted, run, and measured in the types that it asks for."""

import numpy as np
import pytest

from tests.contracts.test_models import MODELS, SHAPES
from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.export import (
    GPTQ,
    MSE,
    Dynamic,
    DynamicRange,
    EdgeQuantized,
    Float16,
    Float32,
    Int8,
    Int16x8,
    Percentile,
    Static,
    WeightOnly,
)
from tfopt.testing import check_variant

# How they compute; a static variant leaves no operator float.
VARIANTS = {
    Float32: "float",
    Float16: "float",
    DynamicRange: "hybrid",
    Int8: "int8",
    lambda: Int8(calibration=Percentile()): "int8",
    lambda: Int8(calibration=MSE()): "int8",
    Int16x8: "int16",
    EdgeQuantized: "int8",
    lambda: EdgeQuantized(activations=Static(bits=16)): "int16",
    lambda: EdgeQuantized(activations=Dynamic(), bits=8): "hybrid",
    lambda: EdgeQuantized(activations=WeightOnly(), weights=GPTQ()): "float",
}
FAST = {"ds_cnn_shallow"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in MODELS],
)
def test_model(name):
    shape = SHAPES.get(name, (8, 8, 1))
    spec = Spec(shape=shape, class_names=("a", "b", "c", "d"), train_size=16)
    keras.utils.set_random_seed(0)
    model = MODELS[name](spec)
    examples = np.random.default_rng(0).normal(size=(16, *shape))
    for _ in range(30):
        # Statistics as of training: without, a deep model's activations vanish.
        model(examples, training=True)
    for make, precision in VARIANTS.items():
        found = check_variant(make(), model, spec=spec)
        operators = {kind: getattr(found, f"ops_{kind}") for kind in ("int8", "int16", "hybrid")}
        assert {kind for kind, count in operators.items() if count} == {precision} - {"float"}
        assert precision in ("float", "hybrid") or found.ops_float == 0
        assert bool(found.layers) == any(operators.values())
