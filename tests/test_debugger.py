import re

import numpy as np
import pytest

from tfopt import debugger
from tfopt.checkpoint import reloaded
from tfopt.compat import keras, tf
from tfopt.debugger import debug
from tfopt.export import Artifact, DynamicRange, EdgeQuantized, Int8, MinMax
from tfopt.stages import Equalize, Float, Quantize
from tfopt.tflite import flatbuffer

EXAMPLES = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype(np.float32)
SAMPLES = tf.data.Dataset.from_tensors((EXAMPLES, np.zeros(64, np.int32)))
LAYERS = {"input", "conv_relu", "second_relu", "flatten", "hidden", "logits"}


def model(stretched=1.0, into=1.0):
    """Two convolutions and two Dense; one channel of the first may be `stretched`."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3), name="input")
    x = layers.Conv2D(8, 3, name="conv")(x)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = layers.ReLU(name="conv_relu")(x)
    x = layers.Conv2D(8, 3, name="second")(x)
    x = layers.ReLU(name="second_relu")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    made = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="net")
    gamma, kernel = made.get_layer("conv_bn").gamma, made.get_layer("second").kernel
    gamma.assign(gamma * np.float32([stretched, *[1] * 7]))
    kernel.assign(kernel / np.float32([into, *[1] * 7])[:, None])
    return made


def noises(made, variant, examples=EXAMPLES, change=bytes):
    content = change(variant.convert(made, examples))
    artifact = Artifact(stage="train", variant=variant.name, content=content)
    return debug(artifact, made, EXAMPLES[:32])


def test_a_sound_file_has_little_noise_and_no_advice():
    found = noises(model(), Int8())
    assert {noise.layer for noise in found} == LAYERS
    assert [noise.own_db for noise in found] == sorted(noise.own_db for noise in found)
    assert found[0].own_db > 25
    assert not any(noise.advice for noise in found)
    (last,) = (noise for noise in found if noise.layer == "logits")
    assert last.sqnr_db < last.own_db


def test_blames_the_layer_that_is_broken_and_none_after_it():
    def reverse(content):
        operators = flatbuffer.read(content).operators
        kernel = next(op for op in operators if op.label == "CONV_2D second_relu").kernel.values
        assert content.count(kernel.tobytes()) == 1
        return content.replace(kernel.tobytes(), kernel[:, ::-1, ::-1, ::-1].tobytes())

    worst, *others = noises(model(), Int8(), change=reverse)
    assert worst.layer == "second_relu"
    assert worst.own_db < 5
    assert all(noise.own_db > 20 and not noise.advice for noise in others)
    after = {noise.layer: noise.sqnr_db for noise in others}
    assert after["hidden"] < 10 < after["conv_relu"]


OUTLIER = np.where(np.arange(64) == 9, 500, 1)[:, None, None, None]
CASES = {
    "kernel": (model(1000, 1000), Int8(), EXAMPLES, "second_relu", "range of its kernel: Equalize"),
    "outlier": (model(), Int8(), EXAMPLES * OUTLIER, "input", "outliers .* MSE.* Percentile"),
    "cut": (model(), Int8(), EXAMPLES / 20, "input", "cuts values off: calibrate on more"),
}


@pytest.mark.parametrize(
    ("made", "variant", "examples", "layer", "advice"), CASES.values(), ids=CASES.keys()
)
def test_the_advice_fits_the_cause(made, variant, examples, layer, advice):
    found = {noise.layer: noise for noise in noises(made, variant, np.float32(examples))}
    assert found[layer].own_db < 20
    assert re.search(advice, found[layer].advice), found[layer].advice
    # 3 bytes more for each weight of the kernel of 3x3x8x8; an input can't stay float.
    keeps = "keep it float with exclude=('second',) (1,728 bytes more)"
    assert (keeps in found[layer].advice) == (layer == "second_relu")
    assert ("float" in found[layer].advice) == (layer == "second_relu")


def test_what_a_trained_model_is_told_to_keep_float_is_a_layer_that_can_be(monkeypatch):
    monkeypatch.setattr(debugger, "_ENOUGH", np.inf)
    layers = keras.layers
    inputs = keras.Input((6, 8), name="input")
    attended = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(layers.Add(name="add")([inputs, attended]))
    x = layers.Conv1D(8, 3, use_bias=False, name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.GRU(4, name="gru")(x)
    plain = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="net")
    examples = np.random.default_rng(0).normal(size=(16, 6, 8)).astype(np.float32)
    samples = tf.data.Dataset.from_tensors((examples, 0))
    stage = Quantize()
    trained = reloaded(stage.finish(stage.prepare(plain, 0, samples)))
    content = Int8().convert(trained, examples)
    artifact = Artifact(stage="quantize", variant="int8", content=content)
    advice = " ".join(noise.advice for noise in debug(artifact, trained, examples))
    told = dict.fromkeys(re.findall(r"Float\(layers=\('(.*?)',\)", advice))
    assert (
        {"attention", "norm", "conv", "gru", "logits"}
        <= set(told)
        <= {layer.name for layer in plain.layers} - {"input"}
    )
    Quantize(layers=(Float(layers=tuple(told)),)).prepare(plain, 0, samples)


def test_channels_lost_beside_a_great_one_are_found_where_they_were_lost():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="input")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    outputs = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    made = keras.Model(inputs, outputs)
    factors = np.float32([1000, *[1] * 7])
    for layer, factor in (("conv", factors), ("depthwise", 1 / factors[:, None])):
        kernel = made.get_layer(layer).weights[0]
        kernel.assign(kernel * factor)
    advice = {noise.layer: noise.advice for noise in noises(made, Int8())}
    assert advice["conv"] == "few of its channels take the whole range: Equalize()"
    assert not advice["input"]
    balanced = Equalize().prepare(made, 0, SAMPLES)
    assert not any(noise.advice for noise in noises(balanced, Int8()))


def test_where_only_the_sum_is_too_much_the_worst_layer_is_told():
    worst, *others = noises(model(), EdgeQuantized(weights=MinMax()))
    assert worst.own_db > 20 > min(noise.sqnr_db for noise in others)
    assert worst.advice.startswith("4 bit are too coarse for its kernel: bits=8")
    assert not any(noise.advice for noise in others)


def test_weights_in_integers_are_debugged_as_well():
    inputs = keras.Input((64,), name="input")
    wide = keras.Model(inputs, keras.layers.Dense(64, name="logits")(inputs))
    content = DynamicRange().convert(wide, EXAMPLES)
    artifact = Artifact(stage="train", variant="dynamic", content=content)
    found = debug(artifact, wide, np.ones((4, 64), np.float32))
    assert {noise.layer: noise.own_db > 20 for noise in found} == {"input": True, "logits": True}
