import gzip
import json

import flatbuffers
import numpy as np
import pytest

from tfopt import evaluate, export
from tfopt.compat import keras, litert, tf, tflite_schema
from tfopt.stages import Quantize
from tfopt.tflite import flatbuffer, flatgraph

SHAPE = (8, 8, 2)
RNG = np.random.default_rng(0)
EXAMPLES = RNG.standard_normal((80, *SHAPE)).astype(np.float32)
LABELS = RNG.integers(0, 3, 80)
# Channels that end in 1, so that int8 codes are round(127 * value).
CONV = np.resize(np.float32([0, 0.5, -0.5, 0.25, 0, 0, -1]), (3, 3, 2, 4))
CONV[0, 0, 0] = 1
DEPTHWISE = np.resize(np.float32([0, 1, -0.5]), (3, 3, 4, 1))
DEPTHWISE = np.where(DEPTHWISE < 0, np.float32([[-0.5], [-0.25], [-0.75], [-0.125]]), DEPTHWISE)
DEPTHWISE[0, 0] = 1
DENSE = np.resize(np.float32([0, 0, 0.5, -0.25]), (64, 3))
DENSE[0] = 1
KERNELS = {
    "conv": (CONV.transpose(3, 0, 1, 2), 0),
    "depthwise": (DEPTHWISE.transpose(3, 0, 1, 2), 3),
    "logits": (DENSE.T, 0),
}


def handmade():
    x = inputs = keras.Input(SHAPE, name="input")
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.ReLU(name="conv_relu")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    for name, kernel in (("conv", CONV), ("depthwise", DEPTHWISE), ("logits", DENSE)):
        layer = model.get_layer(name)
        layer.set_weights([kernel, np.zeros_like(layer.get_weights()[1])])
    # Logits around zero: otherwise one class would win everywhere.
    bias = -np.mean(model(EXAMPLES), axis=0)
    model.get_layer("logits").set_weights([DENSE, bias])
    return model


def split():
    weights = np.ones(80, np.float32)
    weights[70:] = 0  # as the rows that fill up a last batch
    return tf.data.Dataset.from_tensor_slices((EXAMPLES, LABELS, weights)).batch(40)


@pytest.fixture(scope="module")
def model():
    return handmade()


@pytest.fixture(scope="module")
def artifacts(model):
    return {
        variant.name: export.Artifact(
            stage="train", variant=variant.name, content=variant.convert(model, EXAMPLES)
        )
        for variant in export.sensible()
    }


@pytest.fixture(scope="module")
def reference(model):
    return evaluate.logits(model, split())


def measure(artifact, model, reference, test=None, **options):
    options |= {"model": model, "test": test or split(), "reference": reference}
    outputs = evaluate.answers(artifact, model, options["test"])
    return evaluate.measure(artifact, outputs=outputs, **options)


def codes_per_channel(values, axis):
    return max(len(set(channel.ravel().tolist())) for channel in np.moveaxis(values, axis, 0))


def corrupt(artifact, kernel, values):
    found = kernel.astype(np.float32).tobytes()
    assert artifact.content.count(found) == 1
    content = artifact.content.replace(found, values.astype(np.float32).tobytes())
    return export.Artifact(stage="train", variant="broken", content=content)


def test_reference_is_the_models_without_padding(model, reference):
    logits, labels = reference
    np.testing.assert_allclose(logits, model(EXAMPLES[:70]).numpy(), atol=1e-5)
    np.testing.assert_array_equal(labels, LABELS[:70])
    assert len(set(logits.argmax(-1))) == 3


@pytest.mark.parametrize("variant", ["float32", "float16", "int8"])
def test_kernels_are_what_was_put_in(artifacts, variant):
    content = artifacts[variant].content
    kernels = {kernel.name: kernel for kernel in flatbuffer.read(content).kernels()}
    assert list(kernels) == list(KERNELS)
    for name, (values, axis) in KERNELS.items():
        kernel = kernels[name]
        assert (kernel.shape, kernel.size, kernel.dtype) == (values.shape, values.size, variant)
        assert kernel.zeros == np.sum(values == 0)
        assert kernel.codes == codes_per_channel(values, axis)
        assert kernel.codes_total == len(set(values.ravel().tolist()))


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_kernels_are_what_the_interpreter_has(artifacts, variant):
    content = artifacts[variant].content
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    details = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    stored = [
        tensor
        for operator in flatbuffer.read(content).operators
        for tensor in operator.inputs
        if tensor is not None and tensor.values is not None
    ]
    assert len(stored) >= 6
    for tensor in stored:
        there = interpreter.get_tensor(details[tensor.name])
        np.testing.assert_array_equal(tensor.values, there)
        assert tensor.values.dtype == there.dtype


def test_zero_is_what_dequantizes_to_zero():
    tensor = flatgraph.Tensor(
        name="net/old/kernel",
        shape=(2, 3),
        dtype="uint8",
        scales=(0.1, 0.1),
        zero_points=(3, 0),
        axis=0,
        values=np.uint8([[3, 3, 0], [0, 3, 5]]),
    )
    kernel = flatgraph._kernel("layer", "FULLY_CONNECTED", tensor, 0)
    assert (kernel.zeros, kernel.codes, kernel.codes_total) == (3, 3, 3)


def test_int4_is_unpacked_with_its_sign():
    packed = np.array([0x1F, 0x87, 0x02], np.uint8)
    tensor, buffer = tflite_schema.TensorT(), tflite_schema.BufferT()
    tensor.type, tensor.shape, buffer.data = tflite_schema.TensorType.INT4, [1, 5], packed
    values = flatbuffer.stored_values([buffer], tensor)
    assert values.tolist() == [[-1, 1, 7, -8, 2]]


def test_kernels_behind_the_flatbuffer_are_read(artifacts):
    content = artifacts["int8"].content
    model = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
    stored = {i: bytes(b.data) for i, b in enumerate(model.buffers) if b.data is not None}
    starts = dict.fromkeys(stored, 2)
    for _ in range(2):  # where they begin is known once the rest has its length
        for index, start in starts.items():
            buffer = model.buffers[index]
            buffer.data, buffer.offset, buffer.size = None, start, len(stored[index])
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        ends = len(builder.Output()) + np.cumsum([len(data) for data in stored.values()])
        starts = {i: int(end) - len(stored[i]) for i, end in zip(stored, ends, strict=True)}
    outside = bytes(builder.Output()) + b"".join(stored.values())
    assert flatbuffer.read(outside).kernels() == flatbuffer.read(content).kernels()


@pytest.mark.parametrize("variant", ["float32", "float16", "dynamic", "int8"])
def test_measurement(artifacts, model, reference, variant):
    artifact = artifacts[variant]
    found = measure(artifact, model, reference)
    assert (found.stage, found.variant) == ("train", variant)
    assert (found.bytes, found.examples) == (len(artifact.content), 70)
    assert len(gzip.compress(artifact.content, mtime=0)) == found.gzip_bytes < found.bytes
    zeros = sum(int(np.sum(values == 0)) for values, _ in KERNELS.values())
    assert found.sparsity == zeros / (CONV.size + DEPTHWISE.size + DENSE.size)
    assert found.agreement >= 0.95
    assert found.keras_accuracy == np.mean(reference[0].argmax(-1) == LABELS[:70])
    assert 0 < found.latency_median_us <= found.latency_p90_us
    assert (found.ops_int8, found.ops_float) == ((4, 0) if variant == "int8" else (0, 4))
    assert len(found.float_ops) == found.ops_float
    tolerance = 1e-5 if variant == "float32" else 0.05
    assert found.max_logit_difference < tolerance * np.ptp(reference[0])
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_float_operators_are_named_by_their_layers(artifacts, model, reference):
    assert measure(artifacts["float32"], model, reference).float_ops == (
        "CONV_2D conv_relu",
        "DEPTHWISE_CONV_2D depthwise",
        "RESHAPE flatten",
        "FULLY_CONNECTED logits",
    )


def test_accuracy_is_that_of_a_plain_loop(artifacts, model, reference):
    interpreter = litert.Interpreter(model_content=artifacts["int8"].content)
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = first["quantization"]
    outputs = []
    for example in EXAMPLES[:70]:
        codes = np.clip(np.round(example[None] / scale) + zero_point, -128, 127)
        interpreter.set_tensor(first["index"], codes.astype(np.int8))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(last["index"])[0].astype(np.float32))
    classes = np.argmax(outputs, axis=-1)
    scale, zero_point = last["quantization"]
    logits = scale * (np.float32(outputs) - zero_point)
    found = measure(artifacts["int8"], model, reference)
    assert found.accuracy == np.mean(classes == LABELS[:70])
    assert found.agreement == np.mean(classes == reference[0].argmax(-1))
    assert found.max_logit_difference == pytest.approx(
        np.abs(logits - reference[0]).max(), rel=1e-4
    )


def test_a_model_that_knows_nothing_is_said_to(artifacts, model, reference, caplog):
    logits, labels = reference
    wrong = (logits.argmax(-1) + 1) % logits.shape[-1]  # never what the model says
    data = tf.data.Dataset.from_tensors((EXAMPLES[:70], wrong, np.ones(len(wrong))))
    found = measure(artifacts["float32"], model, (logits, wrong), data)
    assert found.accuracy == 0 < found.chance == np.bincount(wrong).max() / 70
    assert "hardly better than always the most frequent" in caplog.text


@pytest.mark.parametrize(
    ("layer", "blamed"), [("conv", "conv_relu"), ("depthwise", "depthwise"), ("logits", "logits")]
)
def test_broken_kernel_is_found(artifacts, model, reference, layer, blamed):
    kernel = KERNELS[layer][0]
    broken = corrupt(artifacts["float32"], kernel, -5 * kernel)  # as many zeros and values
    with pytest.raises(
        evaluate.ArtifactError,
        match=rf"'train_broken'.* at least 95\.0%, measured \d.*part at layer '{blamed}'.*off by",
    ):
        measure(broken, model, reference)
    assert measure(broken, model, reference, min_agreement=0.0).variant == "broken"


def test_broken_layer_of_a_quantization_aware_model_is_found():
    x = inputs = keras.Input(SHAPE, name="input")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(name="conv_bn")(x)
    x = keras.layers.ReLU(name="conv_relu")(x)
    x = keras.layers.Conv2D(4, 3, name="second")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    plain = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    stage, samples = Quantize(), tf.data.Dataset.from_tensors((EXAMPLES, 0))
    qat = stage.finish(stage.prepare(plain, 0, samples))
    content = export.Int8().convert(qat, EXAMPLES)
    reference = evaluate.logits(qat, split())
    whole = export.Artifact(stage="quantize", variant="int8", content=content)
    assert measure(whole, qat, reference, min_agreement=0.9).ops_float == 0
    assert max(evaluate.layer_errors(whole, qat, EXAMPLES).values()) < 0.1
    operators = flatbuffer.read(content).operators
    kernel = next(op for op in operators if op.label == "CONV_2D second").inputs[1].values
    assert content.count(kernel.tobytes()) == 1
    spoiled = content.replace(kernel.tobytes(), kernel[::-1, ::-1, ::-1, ::-1].tobytes())
    broken = export.Artifact(stage="quantize", variant="int8", content=spoiled)
    with pytest.raises(evaluate.ArtifactError, match="part at layer 'second'"):
        measure(broken, qat, reference, min_agreement=0.99)


def test_absurd_calibration_is_found_at_the_input(model, reference):
    content = export.Int8().convert(model, EXAMPLES * 1e-3)
    artifact = export.Artifact(stage="train", variant="int8", content=content)
    with pytest.raises(evaluate.ArtifactError, match="part at layer 'input'"):
        measure(artifact, model, reference)


def test_one_example_that_differs_is_no_defect_of_a_small_split():
    assert evaluate.agrees(29 / 30, 30, 0.99)
    assert not evaluate.agrees(28 / 30, 30, 0.99)
    assert not evaluate.agrees(998 / 1000, 1000, 0.999)
    assert evaluate.agrees(0.95, 1000, 0.95)


def test_what_a_loaded_model_has_is_logged(model, caplog):
    caplog.set_level("INFO")
    evaluate.log_accuracy(model, split())
    expected = np.mean(model(EXAMPLES[:70]).numpy().argmax(-1) == LABELS[:70])
    assert f"the loaded model has {expected:.1%} on the validation split" in caplog.text


def test_drift_is_not_blamed_on_a_layer(artifacts, model, reference):
    with pytest.raises(evaluate.ArtifactError, match="no single layer is wrong, errors grow to"):
        measure(artifacts["int8"], model, (-reference[0], reference[1]))


def test_artifact_that_is_no_tflite_is_refused(model, reference):
    artifact = export.Artifact(stage="train", variant="int8", content=b"\0" * 64)
    with pytest.raises(evaluate.ArtifactError, match="'train_int8': LiteRT can't allocate"):
        measure(artifact, model, reference)


def test_artifact_that_cannot_be_allocated_is_refused(artifacts, model, reference):
    # An operator that no runtime knows.
    spoiled = tflite_schema.ModelT.InitFromPackedBuf(artifacts["float32"].content, 0)
    code = spoiled.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = tflite_schema.BuiltinOperator.CUSTOM
    code.customCode = b"Unheard"
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(spoiled.Pack(builder), b"TFL3")
    artifact = export.Artifact(stage="train", variant="odd", content=bytes(builder.Output()))
    with pytest.raises(evaluate.ArtifactError, match="'train_odd': LiteRT can't allocate.*Unheard"):
        measure(artifact, model, reference)


def test_latency_runs_at_least_200_times(artifacts, monkeypatch):
    invoked = []
    original = evaluate.Runner.__init__

    def counting(self, *args, **options):
        original(self, *args, **options)
        assert options["threads"] == 1
        assert tuple(self.inputs["examples"]["shape"]) == (1, *SHAPE)
        invoke = self.interpreter.invoke
        self.interpreter.invoke = lambda: (invoked.append(1), invoke())

    monkeypatch.setattr(evaluate.Runner, "__init__", counting)
    evaluate.latency(artifacts["float32"], np.zeros((1, *SHAPE), np.float32))
    assert len(invoked) == 1 + evaluate._WARM_UP + evaluate._RUNS
    assert evaluate._RUNS >= 200


def test_zeros_that_a_file_has_lost_are_an_error_however_well_it_agrees(
    artifacts, model, reference
):
    lacking = corrupt(artifacts["float32"], DENSE.T, DENSE.T + 1e-6)
    zeros = np.sum(DENSE == 0)
    message = (
        f"'train_broken': expected the {zeros} zeros of layer 'logits' to stay, measured 0; the "
        "variant lost what a stage had won: choose another one in config.variants"
    )
    with pytest.raises(evaluate.ArtifactError, match=message):
        measure(lacking, model, reference)
