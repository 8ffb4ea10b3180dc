import hashlib
import os
import signal
import threading
import time

import numpy as np
import pytest

from tfopt import export, preemption
from tfopt.compat import keras, litert, tf, tflite_convert
from tfopt.errors import ConfigError
from tfopt.export.converter import converted
from tfopt.runner import Runner
from tfopt.stages import Quantize
from tfopt.tflite import flatbuffer

SHAPE = (8, 8, 2)
EXAMPLES = np.random.default_rng(0).standard_normal((32, *SHAPE)).astype(np.float32)


def small(reshape=False):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input(SHAPE, name="input")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(name="conv_bn")(x)
    x = keras.layers.ReLU(name="conv_relu")(x)
    if reshape:
        x = keras.layers.Reshape((36, 4), name="reshape")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="small")


def quantized(model, **options):
    stage, samples = Quantize(**options), tf.data.Dataset.from_tensors((EXAMPLES, 0))
    return stage.finish(stage.prepare(model, 0, samples))


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def qat():
    return quantized(small())


@pytest.fixture(scope="module")
def qat_int8(qat):
    return export.Int8().convert(qat, EXAMPLES)


def ends(content):
    interpreter = litert.Interpreter(model_content=content)
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def off(content, model):
    run = Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)
    expected = model(EXAMPLES).numpy()
    return np.linalg.norm(run(EXAMPLES) - expected) / np.linalg.norm(expected)


def fingerprint(model):
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


def test_sensible_variants_follow_the_model():
    names = [variant.name for variant in export.sensible()]
    assert names == ["float32", "float16", "dynamic", "int8"]
    assert export.sensible(8) == [export.Int8(examples=200)]
    taking = [v.name for v in export.sensible() if v.takes_quantized]
    assert taking == ["int8"]


@pytest.mark.parametrize("variant", export.sensible(), ids=lambda v: v.name)
def test_variant_stores_and_computes_in_its_type(model, variant):
    before = fingerprint(model), list(model.layers)
    content = variant.convert(model, EXAMPLES)
    expected = {
        "float32": (np.float32, "float32"),
        "float16": (np.float32, "float16"),
        "dynamic": (np.float32, None),  # the converter leaves kernels this small in float32
        "int8": (np.int8, "int8"),
    }[variant.name]
    first, last = ends(content)
    assert first["dtype"] == last["dtype"] == expected[0]
    kernels = flatbuffer.read(content).kernels()
    assert [kernel.name for kernel in kernels] == ["conv", "logits"]
    assert expected[1] is None or {kernel.dtype for kernel in kernels} == {expected[1]}
    assert (fingerprint(model), list(model.layers)) == before


@pytest.mark.parametrize("variant", export.sensible(), ids=lambda v: v.name)
def test_any_batch_runs_and_one_is_the_default(variant):
    content = variant.convert(small(reshape=True), EXAMPLES)
    interpreter = litert.Interpreter(model_content=content)
    details = interpreter.get_input_details()[0]
    assert tuple(details["shape"]) == (1, *SHAPE)
    interpreter.resize_tensor_input(details["index"], (7, *SHAPE))
    interpreter.allocate_tensors()
    interpreter.invoke()
    output = interpreter.get_output_details()[0]
    assert interpreter.get_tensor(output["index"]).shape == (7, 3)


def test_int8_computes_everything_in_int8(model):
    graph = flatbuffer.read(export.Int8().convert(model, EXAMPLES))
    assert graph.with_precision("float") == []
    assert len(graph.with_precision("int8")) == 3


def test_dynamic_range_stores_large_kernels_in_int8():
    inputs = keras.Input((64,), name="input")
    wide = keras.Model(inputs, keras.layers.Dense(64, name="logits")(inputs))
    (kernel,) = flatbuffer.read(export.DynamicRange().convert(wide, EXAMPLES)).kernels()
    assert (kernel.name, kernel.dtype, kernel.size) == ("logits", "int8", 64 * 64)


def test_int8_calibrates_with_no_more_examples_than_asked(model):
    spoiled = EXAMPLES.copy()
    spoiled[4:] *= 1000
    narrow, wide = (
        ends(export.Int8(examples=n).convert(model, spoiled))[0]["quantization"][0] for n in (4, 5)
    )
    assert narrow == pytest.approx(np.ptp(EXAMPLES[:4]) / 255, rel=1e-3)
    assert wide > 100 * narrow


def test_int8_needs_an_example(model):
    with pytest.raises(ConfigError, match="at least one training example, received 0"):
        export.Int8().convert(model, EXAMPLES[:0])


def test_quantization_aware_model_becomes_int8_with_its_own_ranges(qat, qat_int8):
    first, last = ends(qat_int8)
    assert first["dtype"] == last["dtype"] == np.int8
    assert flatbuffer.read(qat_int8).with_precision("float") == []
    for variant in (export.Int8(), export.Int8(calibration=export.MSE())):
        assert variant.convert(qat, 1000 * EXAMPLES) == qat_int8


@pytest.mark.parametrize("variant", export.sensible()[:3], ids=lambda v: v.name)
def test_quantization_aware_model_becomes_nothing_else(qat, variant):
    with pytest.raises(ConfigError, match=f"variant '{variant.name}'.*use Int8"):
        variant.convert(qat, EXAMPLES)


def test_quantization_aware_training_of_a_sparse_model_leaves_its_zeros():
    sparse = small()
    kernel, bias = sparse.get_layer("logits").get_weights()
    kernel[np.arange(kernel.size).reshape(kernel.shape) % 4 > 0] = 0
    sparse.get_layer("logits").set_weights([kernel, bias])
    content = export.Int8().convert(quantized(sparse), EXAMPLES)
    found = {k.name: k for k in flatbuffer.read(content).kernels()}["logits"]
    assert found.zeros >= kernel.size * 3 // 4
    assert found.dtype == "int8"


def test_excluded_layers_stay_float_and_the_rest_is_int8(model):
    content = export.Int8(exclude=("conv*",)).convert(model, EXAMPLES)
    kernels = {k.name: k.dtype for k in flatbuffer.read(content).kernels()}
    assert kernels == {"conv": "float32", "logits": "int8"}
    first, last = ends(content)
    assert first["dtype"] == last["dtype"] == np.int8
    content = export.Int8(exclude=("logits",)).convert(model, EXAMPLES)
    kernels = {k.name: k.dtype for k in flatbuffer.read(content).kernels()}
    assert kernels == {"conv": "int8", "logits": "float32"}


def test_an_exclusion_that_makes_no_sense_is_refused(model, qat):
    with pytest.raises(ConfigError, match="'int8_mixed', exclude.*'cnv'; did you mean 'conv'"):
        export.Int8(exclude=("cnv",)).check(model)
    with pytest.raises(ConfigError, match="exclude: expected a model without quantization-aware"):
        export.Int8(exclude=("conv",)).check(qat)


def test_int16x8_is_finer_than_int8(model):
    content = export.Int16x8().convert(model, EXAMPLES)
    first, last = ends(content)
    assert first["dtype"] == last["dtype"] == np.int16
    graph = flatbuffer.read(content)
    assert (len(graph.with_precision("int16")), len(graph.operators)) == (3, 3)
    assert {kernel.dtype for kernel in graph.kernels()} == {"int8"}
    assert off(content, model) < off(export.Int8().convert(model, EXAMPLES), model) * 0.7


@pytest.mark.parametrize("make", [export.Int8, export.Int16x8], ids=lambda v: v.kind)
def test_float_ends_change_nothing_between_them(model, qat, make):
    for source in (model, qat):
        plain, floats = (make(float_io=so).convert(source, EXAMPLES) for so in (False, True))
        assert {end["dtype"] for end in ends(floats)} == {np.float32}
        assert make(float_io=True).name == f"{make.kind}_float_io"
        kinds = [operator.kind for operator in flatbuffer.read(floats).operators]
        inside = [operator.kind for operator in flatbuffer.read(plain).operators]
        assert kinds == ["QUANTIZE", *inside, "DEQUANTIZE"]
        one, other = (
            Runner(export.Artifact(stage="s", variant="v", content=each), threads=1)(EXAMPLES)
            for each in (plain, floats)
        )
        step = ends(plain)[1]["quantization"][0]
        # An input that is half of a step from two codes may be rounded to the other one.
        assert np.mean(one != other) < 0.05 and np.abs(one - other).max() <= 1.01 * step


def test_what_the_file_computes_in_follows_the_choice_of_calibration(model):
    plain, other = (
        export.Int8(calibration=calibration).convert(model, EXAMPLES)
        for calibration in (export.MinMax(), export.Percentile(percent=90))
    )
    before, after = (ends(content)[1]["quantization"][0] for content in (plain, other))
    assert after < 0.9 * before
    assert off(plain, model) < off(other, model)


def test_what_was_trained_with_activations_of_16_bits_becomes_that():
    wide = quantized(small(), activations=16)
    with pytest.raises(ConfigError, match="activations of 8 bits.*trained for 16; use Int16x8"):
        export.Int8().convert(wide, EXAMPLES)
    content = export.Int16x8().convert(wide, EXAMPLES)
    assert [end["dtype"] for end in ends(content)] == [np.int16, np.int16]
    assert {kernel.dtype for kernel in flatbuffer.read(content).kernels()} == {"int8"}
    assert export.sensible(16) == [export.Int16x8()]


def test_artifact_is_written_whole_under_its_name(tmp_path):
    artifact = export.Artifact(stage="prune", variant="int8", content=b"bytes")
    path = artifact.write(tmp_path / "artifacts")
    assert path == tmp_path / "artifacts" / "prune_int8.tflite"
    assert path.read_bytes() == b"bytes"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("first", [keras.layers.PReLU(), keras.layers.ELU()])
def test_16_bits_need_a_first_layer_that_has_them(first):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(4)(first(inputs)))
    examples = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    with pytest.raises(ConfigError, match="'int16x8': expected a first .* set float_io=True"):
        export.Int16x8().convert(model, examples)
    assert export.Int16x8(float_io=True).convert(model, examples)


def test_a_signal_while_converting_is_no_error_of_the_model(monkeypatch):
    monkeypatch.setattr(preemption, "_noticed", threading.Event())

    class Made:
        def convert(self):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            except preemption.PreemptedError as error:  # as TensorFlow does
                raise tflite_convert.ConverterError from error
            return b""

    with preemption.listening(), pytest.raises(preemption.PreemptedError):
        converted(Made())


@pytest.mark.parametrize(
    ("layer", "scale", "most"),
    [
        (keras.layers.LayerNormalization(), 1, 0.01),
        # Whose epsilon is less than a step of the variance, as is the variance of one example.
        (keras.layers.LayerNormalization(center=False), 1000, 0.05),
        (keras.layers.LayerNormalization(axis=(1, 2), scale=False), 1, 0.01),
    ],
    ids=["last", "large", "two"],
)
def test_layers_normalise_in_int16(layer, scale, most):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 8), name="input")
    x = layer(inputs)
    for weight in layer.weights:
        weight.assign(np.linspace(0.5, 2, weight.shape.num_elements()).reshape(weight.shape))
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(x))
    model, variant = keras.Model(inputs, logits), export.Int16x8()
    examples = scale * np.random.default_rng(0).standard_normal((32, 4, 8)).astype(np.float32)
    examples[0] /= 1000
    content = variant.convert(model, examples)
    artifact = export.Artifact(stage="s", variant="v", content=content)
    found, expected = Runner(artifact, threads=1)(examples), model(examples).numpy()
    assert np.abs(found - expected)[1:].max() < most * np.abs(expected).max()
    assert flatbuffer.read(content).with_precision("float") == []


def test_groups_are_normalised_at_any_batch():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4, 6), name="input")
    layer = keras.layers.GroupNormalization(3, name="norm")
    outputs = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    for weight in layer.weights:
        weight.assign(np.linspace(0.5, 2, 6))
    examples = np.random.default_rng(0).standard_normal((32, 5, 4, 6)).astype(np.float32)
    for variant, most in ((export.Float32(), 1e-5), (export.Int8(), 0.1)):
        content = variant.convert(model, examples)
        run = Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)
        expected = model(examples).numpy()
        assert np.abs(run(examples) - expected).max() < most * np.abs(expected).max()
        # Under its own name, by which `exclude` and the report tell layers.
        kinds = {op.kind for op in flatbuffer.read(content).operators if op.layers(["norm"])}
        assert "RSQRT" in kinds
