import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.data import Spec
from tfopt.errors import ConfigError
from tfopt.export import GPTQ, MSE, Dynamic, EdgeQuantized, MinMax, Octav, Static, WeightOnly
from tfopt.runner import ArtifactError, Runner
from tfopt.stages import Cluster, Stage
from tfopt.testing import check_variant
from tfopt.tflite import flatbuffer

EXAMPLES = np.random.default_rng(0).standard_normal((32, 8, 8, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 2), name="input")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(64, activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")


@pytest.fixture(scope="module")
def expected(model):
    return model(EXAMPLES).numpy()


def converted(variant, model, expected):
    """Return what is in the file, and how far what it computes is off."""
    content = variant.convert(model, EXAMPLES)
    outputs = Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)(EXAMPLES)
    error = np.linalg.norm(outputs - expected) / np.linalg.norm(expected)
    return flatbuffer.read(content), error


WAYS = [
    (Static(), "int8", {"int8"}),
    (Static(bits=16, calibration=MSE()), "int16", {"int16"}),
    (Dynamic(), "float32", {"hybrid", "float"}),
    (WeightOnly(), "float32", {"float", "other"}),
]


@pytest.mark.parametrize(
    ("activations", "ends", "precisions"), WAYS, ids=lambda v: getattr(v, "name", "")
)
@pytest.mark.parametrize("bits", [4, 8])
def test_stores_and_computes_as_asked(model, expected, activations, ends, precisions, bits):
    variant = EdgeQuantized(bits=bits, activations=activations)
    graph, error = converted(variant, model, expected)
    kernels = {kernel.name: kernel.dtype for kernel in graph.kernels()}
    weights = f"int{bits}"
    assert kernels == {"conv": weights, "depthwise": "int8", "hidden": weights, "logits": weights}
    assert {operator.precision for operator in graph.operators} == precisions
    assert graph.inputs[0].dtype == graph.outputs[0].dtype == ends
    assert error < (0.25 if bits == 4 else 0.05)


def test_four_bits_are_read_back_as_the_rounded_kernel(model, expected):
    graph, _ = converted(EdgeQuantized(weights=MinMax()), model, expected)
    stored = next(op for op in graph.operators if op.label.endswith("hidden")).kernel
    kernel = model.get_layer("hidden").kernel.numpy().T
    scales = np.abs(kernel).max(1, keepdims=True) / 7
    np.testing.assert_allclose(np.ravel(stored.scales), scales.ravel(), rtol=1e-5)
    assert np.mean(stored.values == np.round(kernel / scales)) > 0.999


def test_gptq_is_nearer_than_rounding_to_nearest(model, expected):
    errors = [
        converted(EdgeQuantized(weights=weights, activations=WeightOnly()), model, expected)[1]
        for weights in (MinMax(), GPTQ())
    ]
    assert errors[1] < 0.9 * errors[0]


def test_blocks_have_scales_of_their_own(model, expected):
    variant = EdgeQuantized(block=32, activations=Dynamic(), weights=Octav(), exclude=("logits",))
    graph, error = converted(variant, model, expected)
    assert variant.name == "edge_w4b32_dynamic_octav_mixed"
    kernels = {kernel.name: kernel.dtype for kernel in graph.kernels()}
    assert (kernels["hidden"], kernels["logits"]) == ("int4", "float32")
    assert error < 0.25


def test_a_block_that_does_not_divide_a_layer_is_refused(model):
    variant = EdgeQuantized(block=256, activations=Dynamic())
    with pytest.raises(ConfigError, match="a multiple of 256 inputs, received 'hidden' with 128"):
        variant.check(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, r"variants\[0\].bits: expected 4 or 8, received 5"),
        ({"block": 33}, "block: expected 0, 32, 64, 128 or 256 inputs, received 33"),
        ({"block": 32}, r"aren't Dynamic\(\), received 32"),
        ({"weights": GPTQ()}, r"expected another choice than GPTQ\(\) with Static"),
        ({"activations": Static(bits=4)}, "activations.bits: expected 8 or 16, received 4"),
        ({"weights": export.Percentile()}, r"or an object with algorithm\(\), received Percent"),
    ],
)
def test_what_has_no_kernel_is_refused_before_anything_loads(options, message):
    experiment = Experiment(
        name="x",
        data=type("Data", (), {"load": print})(),
        model=print,
        stages=[Stage()],
        variants=[EdgeQuantized(**options)],
    )
    with pytest.raises(ConfigError, match=message):
        experiment.validate()


def test_a_missing_package_is_named_with_its_extra(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"ai-edge-quantizer, found none; pip install 'tfopt\[edge"
    ):
        EdgeQuantized().check(model)


@pytest.fixture(scope="module")
def clustered():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,), name="input")
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden), name="net")
    samples = tf.data.Dataset.from_tensors((np.zeros((1, 64)), 0))
    return Cluster(clusters=8, epochs=0).prepare(model, 0, samples)


SPREADING = [
    (EdgeQuantized(bits=8, weights=GPTQ(), activations=WeightOnly()), r"weights than GPTQ\(\)"),
    (EdgeQuantized(block=32, activations=Dynamic()), "block=0"),
]


@pytest.mark.parametrize(("variant", "instead"), SPREADING, ids=["gptq", "block"])
def test_what_would_round_equal_weights_to_different_codes_is_refused(clustered, variant, instead):
    message = f"without shared values, received 'hidden', .* made 8 distinct .* choose .*{instead}"
    with pytest.raises(ConfigError, match=message):
        variant.check(clustered)
    replace(variant, exclude=("*",)).check(clustered)


def test_shared_values_that_a_file_has_lost_are_an_error(clustered, monkeypatch):
    variant, _ = SPREADING[0]
    monkeypatch.setattr(EdgeQuantized, "_check_shared", lambda *_: None)
    spec = Spec(shape=(64,), class_names=("a", "b", "c"), train_size=16)
    message = (
        rf"artifact 'train_{variant.name}': expected the 8 distinct values per channel of layer "
        r"'hidden' to stay, measured (9|\d\d); the variant lost what a stage had won"
    )
    with pytest.raises(ArtifactError, match=message):
        check_variant(variant, clustered, spec=spec)
    check_variant(EdgeQuantized(bits=8), clustered, spec=spec)
