"""Every variant of every model: converted, run, and measured in the types that it asks for."""

import numpy as np
import pytest

from tests.contracts.test_techniques import CLASSES, MODELS, SHAPES
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
SHAPING = {"SHAPE", "FILL", "QUANTIZE", "DEQUANTIZE"}
# What stays float of models that aren't of images: with None all, as kernels of less than 1,024
# weights do, else what ai-edge-quantizer has no integers for.
FLOAT = {
    ("transformer", "dynamic"): None,
    ("recurrent", "dynamic"): None,
    ("recurrent", "edge_w4_a8_octav"): SHAPING | {"REVERSE_V2", "SPLIT_V"},
    ("recurrent", "edge_w4_a16_octav"): SHAPING | {"REVERSE_V2", "SPLIT_V"},
    ("transformer", "edge_w4_a8_octav"): SHAPING,
    ("transformer", "edge_w4_a16_octav"): SHAPING,
}
FAST = {"ds_cnn_shallow"}
# The loops of a recurrent one are hundreds of operators.
CHEAP = {("transformer", name) for name in ("int16x8", "edge_w4_a8_octav")}


@pytest.fixture(scope="module")
def model(request):
    """A model that has seen data, and the spec that it is made for."""
    shape = SHAPES.get(request.param, (8, 8, 1))
    spec = Spec(shape=shape, class_names=CLASSES, train_size=16)
    keras.utils.set_random_seed(0)
    made = MODELS[request.param](spec)
    examples = np.random.default_rng(0).normal(size=(16, *shape))
    for _ in range(30):
        # Statistics as of training: without, a deep model's activations vanish.
        made(examples, training=True)
    return request.param, spec, made


def each_model():
    """Every model x every variant, slow but for those of FAST models and CHEAP."""
    return [
        pytest.param(
            *(name, make),
            marks=[] if name in FAST or (name, make().name) in CHEAP else [pytest.mark.slow],
            id=f"{name}-{make().name}",
        )
        for name in MODELS
        for make in VARIANTS
    ]


@pytest.mark.parametrize(("model", "make"), each_model(), indirect=["model"], scope="module")
def test_variant(model, make):
    name, spec, made = model
    variant, precision = make(), VARIANTS[make]
    found = check_variant(variant, made, spec=spec)
    operators = {kind: getattr(found, f"ops_{kind}") for kind in ("int8", "int16", "hybrid")}
    allowed = FLOAT.get((name, variant.name), set())
    expected = {precision} - {"float"} if allowed is not None else set()
    assert {kind for kind, count in operators.items() if count} == expected
    assert precision in ("float", "hybrid") or {op.split()[0] for op in found.float_ops} <= allowed
    assert bool(found.layers) == any(operators.values())
