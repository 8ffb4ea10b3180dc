"""Convolutions that Keras computes by other operators arrive as one, under their own name."""

import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.export import Artifact, Float32, Int8, Int16x8
from tfopt.runner import Runner
from tfopt.tflite import flatbuffer

L = keras.layers
WAVE, IMAGE = (12, 4), (9, 9, 4)
LAYERS = {
    "dilated": (L.Conv2D(6, 3, dilation_rate=2, activation="relu", name="it"), IMAGE, "CONV_2D"),
    "same": (L.Conv2D(6, 3, dilation_rate=(1, 3), padding="same", name="it"), IMAGE, "CONV_2D"),
    "grouped": (L.Conv2D(6, 3, strides=2, groups=2, name="it"), IMAGE, "CONV_2D"),
    "both": (L.Conv2D(6, 3, groups=2, dilation_rate=2, name="it"), IMAGE, "CONV_2D"),
    "depthwise": (
        L.DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2, name="it"),
        IMAGE,
        "DEPTHWISE_CONV_2D",
    ),
    "causal": (L.Conv1D(6, 3, dilation_rate=4, padding="causal", name="it"), WAVE, "CONV_2D"),
    "grouped1d": (L.Conv1D(6, 3, groups=2, name="it"), WAVE, "CONV_2D"),
    "depthwise1d": (
        L.DepthwiseConv1D(3, dilation_rate=2, activation="relu", name="it"),
        WAVE,
        "DEPTHWISE_CONV_2D",
    ),
    "transposed1d": (L.Conv1DTranspose(6, 3, strides=2, name="it"), WAVE, "TRANSPOSE_CONV"),
    "transposed1d_same": (
        L.Conv1DTranspose(6, 3, padding="same", use_bias=False, name="it"),
        WAVE,
        "TRANSPOSE_CONV",
    ),
}


def test_a_transposed_one_of_unknown_length_stays_as_keras_has_it():
    inputs = keras.Input((None, 4))
    x = L.GlobalAveragePooling1D()(L.Conv1DTranspose(6, 3, strides=2)(inputs))
    assert Float32().convert(keras.Model(inputs, x), np.zeros((1, 8, 4), np.float32))


@pytest.mark.parametrize("name", LAYERS)
def test_one_operator_computes_what_keras_does_at_any_batch(name):
    layer, shape, kind = LAYERS[name]
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config(layer.get_config() | {"bias_initializer": "random_normal"})
    inputs = keras.Input(shape)
    model = keras.Model(inputs, L.Dense(3, name="logits")(L.Flatten()(layer(inputs))))
    examples = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = model(examples, training=False).numpy()
    for variant, off in ((Float32(), 1e-5), (Int8(), 0.1), (Int16x8(), 0.02)):
        content = variant.convert(model, examples)
        graph = flatbuffer.read(content)
        computing = [operator.kind for operator in graph.operators if operator.kernel is not None]
        assert computing == [kind, "FULLY_CONNECTED"]
        assert "BATCH_TO_SPACE_ND" not in {operator.kind for operator in graph.operators}
        assert [kernel.name for kernel in graph.kernels()] == ["it", "logits"]
        for batch in (1, 3):
            run = Runner(Artifact(stage="", variant=variant.name, content=content), threads=1)
            found = run(examples[:batch])
            assert np.abs(found - expected[:batch]).max() < off * np.abs(expected).max()
