"""A recurrent layer's loop is written out, so that one file takes any batch."""

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.runner import Runner
from tfopt.stages import Quantize
from tfopt.tflite import flatbuffer

L = keras.layers
EXAMPLES = np.random.default_rng(0).normal(size=(8, 3, 5, 4)).astype(np.float32)


def model_of(layer, steps=3):
    inputs = keras.Input((steps, *EXAMPLES.shape[2:]), name="input")
    x = inputs if isinstance(layer, L.TimeDistributed) else L.TimeDistributed(L.Flatten())(inputs)
    return keras.Model(inputs, L.Dense(3, name="logits")(layer(x)))


LAYERS = {
    "lstm": lambda: L.LSTM(6, name="looping"),
    "gru": lambda: L.GRU(6, name="looping"),
    "both": lambda: L.Bidirectional(L.LSTM(6), name="looping"),
    "inside": lambda: L.TimeDistributed(L.SimpleRNN(6), name="looping"),
}


@pytest.mark.parametrize(
    "name", ["lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in list(LAYERS)[1:])]
)
def test_converts_and_runs_any_batch(name):
    keras.utils.set_random_seed(0)
    model = model_of(LAYERS[name]())
    expected = model(EXAMPLES).numpy()
    for variant in (export.Float32(), export.Int8()):
        content = variant.convert(model, EXAMPLES)
        run = Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)
        for count in (1, len(EXAMPLES)):
            off = np.linalg.norm(run(EXAMPLES[:count]) - expected[:count])
            share = 1e-5 if variant.name == "float32" else 0.1
            assert off < share * np.linalg.norm(expected[:count])
    assert flatbuffer.read(content).with_precision("float") == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of(LAYERS["lstm"](), None), "known number of time steps, .*'looping' with"),
        (lambda: model_of(LAYERS["both"](), None), "known number of time steps, .*'looping' with"),
        (
            lambda: keras.Model(
                x := keras.Input((3, 5, 4, 1)), L.ConvLSTM2D(2, 3, name="looping")(x)
            ),
            "that TFLite can compute, received 'looping', a ConvLSTM2D",
        ),
    ],
)
def test_a_loop_that_cannot_be_written_out_is_refused(model, message):
    made = model()
    for variant in (export.Float32(), export.Int8()):
        with pytest.raises(ConfigError, match=f"variant '{variant.name}': expected .*{message}"):
            variant.check(made)


def test_a_loop_in_a_quantization_aware_model_stays_float_in_the_file():
    # One that no int8 operators are known for.
    model, stage = model_of(keras.layers.GRU(6, reset_after=False)), Quantize()
    samples = tf.data.Dataset.from_tensors((EXAMPLES, 0))
    finished = stage.finish(stage.prepare(model, 0, samples))
    content = export.Int8().convert(finished, EXAMPLES)
    kernels = {kernel.name: kernel.dtype for kernel in flatbuffer.read(content).kernels()}
    assert kernels.pop("logits") == "int8"
    assert set(kernels.values()) == {"float32"}
    run = Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)
    assert np.abs(run(EXAMPLES) - finished(EXAMPLES)).max() <= 2 * run.output["quantization"][0]


def test_the_steps_inside_may_be_known_where_those_outside_are_not():
    export.Float32().check(model_of(LAYERS["inside"](), None))


def test_int8_behind_a_mask_is_refused():
    inputs = keras.Input((6, 8), name="input")
    x = keras.layers.LSTM(4, name="lstm")(keras.layers.Masking(name="masking")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    with pytest.raises(ConfigError, match="received 'lstm' behind a mask, which LiteRT can't run"):
        export.Int8().check(model)
    export.Float32().check(model)


def test_what_tflite_cannot_compute_is_one_sentence():
    inputs = keras.Input((4, 4, 4, 2), name="input")
    x = keras.layers.AveragePooling3D(name="pool")(inputs)
    model = keras.Model(inputs, keras.layers.Flatten(name="flatten")(x))
    with pytest.raises(ConfigError, match="layers that TFLite can compute, .*AvgPool3D"):
        export.Float32().convert(model, np.zeros((1, 4, 4, 4, 2), np.float32))
