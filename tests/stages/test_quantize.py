"""Every kind of layer is trained as TFLite computes it, and the .tflite computes the same."""

import numpy as np
import pytest

from tfopt.checkpoint import reloaded
from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.export import Artifact, Int8, Int16x8
from tfopt.facts import is_quantized, kernel_variables, measure
from tfopt.rounding import Range, four_bits, left_float
from tfopt.runner import Runner
from tfopt.stages import AtOnce, Bits, Float, Prune, Quantize
from tfopt.stages.hold import hold
from tfopt.testing import check_stage
from tfopt.tflite import flatbuffer

L = keras.layers
RNG = np.random.default_rng(0)
IMAGE = (6, 6, 3)
APART = "LOGISTIC QUANTIZE CONV_2D QUANTIZE CONCATENATION"
OPERATORS = "CONV_2D MUL ADD STRIDED_SLICE SUB"
AVERAGED = "CONV_2D AVERAGE_POOL_2D CONV_2D"
AFFINE = "DEPTHWISE_CONV_2D"
SIMPLE_STEP = " FULLY_CONNECTED ADD TANH"
LSTM_BEGIN = "FULLY_CONNECTED LOGISTIC TANH MUL TANH MUL"
LSTM_STEP = " FULLY_CONNECTED ADD LOGISTIC TANH MUL MUL ADD TANH MUL"
GRU_BEGIN = "FULLY_CONNECTED ADD LOGISTIC MUL ADD TANH MUL SUB"
GRU_STEP = " FULLY_CONNECTED ADD LOGISTIC MUL ADD TANH SUB MUL ADD"
BOTH_GRUS = f"{GRU_BEGIN}{GRU_STEP} {GRU_BEGIN}{GRU_STEP}"
BIASED, STEPS = {"bias_initializer": "normal"}, {"return_sequences": True}
EDGES = [[0, 0], [1, 1], [1, 1], [0, 0]]
AVERAGES = "FULLY_CONNECTED ADD DEPTHWISE_CONV_2D ADD DEPTHWISE_CONV_2D"
LAYER_NORM = "MEAN SUB MUL MEAN ADD MAXIMUM RSQRT MUL DEPTHWISE_CONV_2D"

ATTENTION = f"{4 * 'FULLY_CONNECTED '} BATCH_MATMUL SELECT_V2 SOFTMAX BATCH_MATMUL"


def norm(x):
    made = L.BatchNormalization(beta_initializer="normal", moving_mean_initializer="normal")
    return made(x)


def conv(x, activation=None):
    return L.Conv2D(3, 1, activation=activation)(x)


def sigmoid(x):
    return L.Activation("sigmoid")(x)


def joint(*parts):
    return L.Concatenate()(list(parts))


def operators(x, y):
    return (tf.nn.relu(x * 0.5 + y) - 1.0)[:, ::2]


def norm_relu(x):
    return L.ReLU()(norm(x))


def hard_swish(x):
    return L.Multiply()([x, L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def timed(layer):
    return L.TimeDistributed(layer)


def timed_cnn(x):
    x = timed(L.ReLU())(timed(L.BatchNormalization())(timed(L.Conv2D(4, 3))(x)))
    return timed(L.Dense(3))(timed(L.Flatten())(timed(L.MaxPooling2D())(x)))


def masked(x, steps):
    return L.MultiHeadAttention(2, 4)(x, x, attention_mask=steps[:, None, :])


def dilated(layer, *filters):
    return layer(*filters, 3, dilation_rate=2, padding="same")


def siamese(x, y):
    inner = L.Conv2D(4, 1), L.BatchNormalization(), L.ReLU()
    for layer in inner:
        x, y = layer(x), layer(y)
    return L.Subtract()([x, y])


def averages(layer, x, y):
    return layer([x, y, layer([x, y])])


def twice(layer, x):
    return layer(layer(x))


# For each: the layers between input and Flatten, the input's shape, and the operators that they
# become.
KINDS = {
    "conv1d": (lambda x: norm_relu(L.Conv1D(4, 3)(x)), (8, 4), "CONV_2D"),
    "transposed": (lambda x: norm_relu(L.Conv2DTranspose(4, 3)(x)), IMAGE, "TRANSPOSE_CONV"),
    "separable": (L.SeparableConv2D(4, 3), IMAGE, "DEPTHWISE_CONV_2D CONV_2D"),
    "depthwise": (lambda x: norm_relu(L.DepthwiseConv2D(3)(x)), IMAGE, "DEPTHWISE_CONV_2D"),
    "first": (lambda x: conv(norm_relu(x)), IMAGE, "DEPTHWISE_CONV_2D CONV_2D"),
    "rows": (lambda x: norm(L.Dense(8, "relu")(x)), (8,), "FULLY_CONNECTED DEPTHWISE_CONV_2D"),
    "steps": (lambda x: L.Dense(5, "relu")(x), (6, 4), "FULLY_CONNECTED"),
    "einsum": (L.EinsumDense("abc,cd->abd", (6, 5), bias_axes="d"), (6, 4), "FULLY_CONNECTED"),
    "timed_rows": (lambda x: timed(L.Dense(5, "relu"))(x), (6, 4), "FULLY_CONNECTED"),
    "timed_conv": (lambda x: timed(L.Conv2D(5, 3))(x), (2, *IMAGE), "CONV_2D"),
    "timed_cnn": (lambda x: timed_cnn(x), (2, *IMAGE), "CONV_2D MAX_POOL_2D FULLY_CONNECTED"),
    "timed_norm": (lambda x: timed(L.LayerNormalization())(x), (4, 8), LAYER_NORM),
    "pool1d": (lambda x: L.MaxPooling1D()(L.Conv1D(4, 1)(x)), (8, 4), "CONV_2D MAX_POOL_2D"),
    "mean1d": (lambda x: L.Conv1D(4, 1)(L.AveragePooling1D()(L.Conv1D(4, 1)(x))), (8, 4), AVERAGED),
    "mean2d": (lambda x: conv(L.AveragePooling2D()(conv(x))), IMAGE, AVERAGED),
    "gate": (lambda x: L.Multiply()([x, conv(x, "sigmoid")]), IMAGE, "CONV_2D LOGISTIC MUL"),
    "subtract": (lambda x: L.Subtract()([x, conv(x)]), IMAGE, "CONV_2D SUB"),
    "three": (lambda x: L.ReLU()(L.Add()([x, x, conv(x)])), IMAGE, "CONV_2D ADD ADD"),
    "joint": (lambda x: joint(conv(x), conv(x, "relu")), IMAGE, "CONV_2D CONV_2D CONCATENATION"),
    "apart": (lambda x: joint(sigmoid(x), conv(x)), IMAGE, APART),
    "swish": (lambda x: L.Activation("swish")(conv(x)), IMAGE, "CONV_2D LOGISTIC MUL"),
    "hard_swish": (lambda x: hard_swish(norm(conv(x))), IMAGE, "CONV_2D HARD_SWISH"),
    "hard_sigmoid": (lambda x: conv(x, "hard_sigmoid"), IMAGE, "CONV_2D MUL ADD MUL"),
    "gelu": (lambda x: L.Dense(8, "gelu")(x), (8,), "FULLY_CONNECTED GELU"),
    "leaky": (lambda x: L.LeakyReLU()(conv(x)), IMAGE, "CONV_2D LEAKY_RELU"),
    "prelu": (L.PReLU("uniform"), IMAGE, "PRELU"),
    "rescaling": (L.Rescaling(0.5, 1.0), IMAGE, "DEPTHWISE_CONV_2D"),
    "normalization": (L.Normalization(mean=1.0, variance=4.0), IMAGE, "DEPTHWISE_CONV_2D"),
    "resizing": (L.Resizing(3, 3), IMAGE, "RESIZE_BILINEAR"),
    "gather": (lambda x: tf.gather(conv(x), [0, 2], axis=1), IMAGE, "CONV_2D GATHER"),
    "depths": (lambda x: tf.nn.space_to_depth(conv(x), 2), IMAGE, "CONV_2D SPACE_TO_DEPTH"),
    "mirrored": (lambda x: tf.pad(conv(x), EDGES, "REFLECT"), IMAGE, "CONV_2D MIRROR_PAD"),
    "operators": (lambda x: operators(x, conv(x)), IMAGE, OPERATORS),
    "nested": (keras.Sequential([L.Input(IMAGE), L.Conv2D(4, 1), L.ReLU()]), IMAGE, "CONV_2D"),
    "shared": (lambda x: twice(L.Conv2D(3, 1, activation="relu"), x), IMAGE, "CONV_2D CONV_2D"),
    "layer_norm": (L.LayerNormalization(), (4, 8), LAYER_NORM),
    "average": (lambda x: L.Average()([x, L.Dense(8)(x)]), (8,), f"FULLY_CONNECTED ADD {AFFINE}"),
    "averages": (lambda x: averages(L.Average(), x, L.Dense(8)(x)), (8,), AVERAGES),
    "simple_rnn": (L.SimpleRNN(4, **BIASED), (3, 2), f"FULLY_CONNECTED TANH{2 * SIMPLE_STEP}"),
    "lstm": (L.LSTM(4, dropout=0.1), (3, 2), f"{LSTM_BEGIN}{2 * LSTM_STEP}"),
    "gru": (L.GRU(4, **BIASED), (3, 2), f"{GRU_BEGIN}{2 * GRU_STEP}"),
    "reversed": (L.GRU(4, **STEPS, go_backwards=True), (2, 2), f"{GRU_BEGIN}{GRU_STEP}"),
    "one_step": (L.GRU(4, **BIASED), (1, 2), GRU_BEGIN),
    "both": (L.Bidirectional(L.LSTM(4)), (1, 2), f"{LSTM_BEGIN} {LSTM_BEGIN} CONCATENATION"),
    "both_steps": (L.Bidirectional(L.GRU(4, **STEPS)), (2, 2), f"{BOTH_GRUS} CONCATENATION"),
    "abs": (lambda x: tf.abs(conv(x)), IMAGE, "CONV_2D ABS"),
    "exp": (lambda x: tf.exp(conv(x)), IMAGE, "CONV_2D EXP"),
    "transpose": (lambda x: tf.transpose(conv(x), (0, 2, 1, 3)), IMAGE, "CONV_2D TRANSPOSE"),
    "dot": (lambda x: L.Dot(-1)([x, L.Dense(8)(x)]), (4, 8), "FULLY_CONNECTED BATCH_MATMUL"),
    "dilated": (lambda x: norm_relu(L.Conv2D(4, 3, dilation_rate=2)(x)), IMAGE, "CONV_2D"),
    "dilated1d": (lambda x: norm_relu(dilated(L.Conv1D, 4)(x)), (8, 4), "CONV_2D"),
    "dilated_depth": (dilated(L.DepthwiseConv2D), IMAGE, "DEPTHWISE_CONV_2D"),
    "dilated_depth1d": (dilated(L.DepthwiseConv1D), (8, 4), "DEPTHWISE_CONV_2D"),
    "grouped": (lambda x: norm_relu(L.Conv2D(6, 3, groups=3)(x)), IMAGE, "CONV_2D"),
    "siamese": (lambda x: siamese(x, x + 1.0), IMAGE, "ADD CONV_2D CONV_2D SUB"),
    "shared_norm": (lambda x: twice(L.LayerNormalization(), x), (4, 8), 2 * f"{LAYER_NORM} "),
    "causal": (lambda x: L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True), (6, 8), ATTENTION),
    "masked": (lambda x: masked(x, x[:, :, 0] > -1.0), (6, 8), f"GREATER {ATTENTION}"),
}  # fmt: skip
SHUFFLING = {"RESHAPE", "EXPAND_DIMS", "SHAPE", "STRIDED_SLICE", "PACK", "TRANSPOSE"}


def model_of(layers, shape, dtype="float32"):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, dtype=dtype, name="input")
    return keras.Model(inputs, L.Dense(4, name="logits")(L.Flatten()(layers(inputs))))


def examples_for(model, count=32):
    shape, dtype = (count, *model.input_shape[1:]), model.inputs[0].dtype.as_numpy_dtype
    rng = np.random.default_rng(0)  # of its own, so that no test depends on those before
    made = 2 * rng.normal(size=shape) if dtype == np.float32 else rng.integers(0, 20, shape)
    return made.astype(dtype)


def prepared(model, examples, steps=0, **options):
    stage = Quantize(**options)
    samples = tf.data.Dataset.from_tensor_slices((examples, np.zeros(len(examples)))).batch(16)
    return stage, stage.prepare(model, steps, samples)


def trained(stage, made, examples, steps):
    """Return the finished model, after `steps` steps that shrink its output."""
    hold(made, trained=True)
    made.compile(keras.optimizers.SGD(1e-3), "mse")
    made.fit(examples[:16], np.zeros((16, 4)), batch_size=16, epochs=steps, verbose=0)
    return stage.finish(made)


def quantized(model, examples, steps=0, **options):
    stage, made = prepared(model, examples, steps, **options)
    return trained(stage, made, examples, steps) if steps else stage.finish(made)


def steps_off(model, examples, content):
    """Return how far the outputs of `content` are from those of `model`, in its output's steps."""
    run = Runner(Artifact(stage="quantize", variant="int8", content=content), threads=1)
    difference = np.abs(run(examples) - model(examples, training=False))
    return difference / run.output["quantization"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer_is_computed_in_int8_as_it_was_trained(kind):
    layers, shape, operators = KINDS[kind]
    model = model_of(layers, shape)
    examples = examples_for(model)
    expected = model(examples, training=False).numpy()
    stage, made = prepared(model, examples)
    assert np.abs(made(examples, training=False) - expected).mean() < 0.1 * expected.std()
    finished = reloaded(trained(stage, made, examples, 3))
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    assert graph.with_precision("float") == []
    kinds = [op.kind for op in graph.operators][:-1]
    wanted = operators.split()
    assert sorted(kind for kind in kinds if kind not in SHUFFLING - {*wanted}) == sorted(wanted)
    off = steps_off(finished, examples, content)
    # What is resized isn't rounded on the way.
    assert off.mean() < (1.0 if kind == "resizing" else 0.25)
    assert off.max() <= 3


def test_layers_without_an_int8_kernel_stay_float_with_their_reason(caplog):
    def layers(x):
        x = L.Dense(8, "selu", name="selu")(L.ELU(name="elu")(x))
        x = L.Lambda(lambda x: 2 * x, name="double")(x)
        return L.Dense(8, name="kept")(x)

    model = model_of(layers, (8,))
    examples = examples_for(model)
    finished = reloaded(quantized(model, examples, steps=2, layers=(Float(layers=("kept",)),)))
    reasons = {
        "elu": "TFLite's converter quantizes no ELU",
        "selu": "the rounding of selu isn't simulated, but Int8() after training quantizes it",
        "double": "it isn't known how TFLite computes Lambda",
        "kept": "the config says so",
    }
    assert left_float(finished) == reasons
    assert all(f"{name} stays float: {why}" in caplog.text for name, why in reasons.items())
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    kernels = {kernel.name: kernel.dtype for kernel in graph.kernels()}
    assert kernels == {"selu": "int8", "kept": "float32", "logits": "int8"}
    assert "ELU" in {operator.kind for operator in graph.with_precision("float")}
    assert steps_off(finished, examples, content).max() <= 3


# For each that isn't trained as int8: what TFLite's own quantizer leaves float of it.
AFTERWARDS = {
    "conv3d": (L.Conv3D(2, 2), (3, 3, 3, 2), {"CONV_3D"}),
    "elu": (L.ELU(), (8,), {"ELU"}),
    "threshold": (L.ReLU(threshold=0.5), (8,), {"CAST"}),
    "transposed1d": (L.Conv1DTranspose(4, 3), (6, 2), set()),
    "divide": (lambda x: x / (L.Dense(8, "relu")(x) + 1.0), (8,), set()),
    **{
        name: (lambda x, way=way: way(L.Dense(8, "relu")(x) + 1.0), (8,), set())
        for name, way in {"log": tf.math.log, "sqrt": tf.sqrt, "rsqrt": tf.math.rsqrt}.items()
    },
    "normalized_dot": (lambda x: L.Dot(-1, normalize=True)([x, x]), (4, 8), set()),
    "negative": (lambda x: -x, (8,), {"NEG"}),
    "square": (lambda x: tf.square(x), (8,), {"SQUARE"}),
    "reverse": (lambda x: tf.reverse(x, [1]), (8,), set()),
    "attention": (lambda x: L.Attention()([x, x]), (4, 8), set()),
    "unit": (L.UnitNormalization(), (8,), set()),
    "ceiling": (L.ReLU(1.0), (8,), set()),
    "axis": (L.Softmax(axis=1), (4, 8), set()),
    "batch_norm": (L.BatchNormalization(axis=1), (4, 8), set()),
    **{
        name: (L.Activation(name), (8,), set())
        for name in ("exponential", "mish", "selu", "softplus", "softsign")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTERWARDS)
def test_a_layer_left_float_is_quantized_after_training_if_its_reason_says_so(name):
    layers, shape, float_ops = AFTERWARDS[name]
    model = model_of(layers, shape)
    examples = examples_for(model)
    (reason,) = left_float(prepared(model, examples)[1]).values()
    assert reason.endswith("Int8() after training quantizes it") == (not float_ops)
    left = flatbuffer.read(Int8().convert(model, examples)).with_precision("float")
    assert {operator.kind for operator in left} - {"QUANTIZE", "DEQUANTIZE"} == float_ops


def encoder(x, **masks):
    for name in ("first", "second"):
        attended = L.MultiHeadAttention(2, 8, name=f"{name}_attention")(x, x, **masks)
        x = L.LayerNormalization(name=f"{name}_norm")(L.Add(name=f"{name}_add")([x, attended]))
        hidden = L.Dense(32, "gelu", name=f"{name}_up")(x)
        x = L.Add(name=f"{name}_out")([x, L.Dense(16, name=f"{name}_down")(hidden)])
    return L.LayerNormalization(name="last_norm")(x)[:, 0]


def test_a_transformer_of_tokens_is_int8_throughout():
    def layers(tokens):
        positions = L.Embedding(12, 16, name="positions")(tf.range(12))
        return encoder(L.Embedding(20, 16, name="tokens")(tokens) + positions)

    model = model_of(layers, (12,), "int32")
    examples = examples_for(model, 64)
    finished = reloaded(quantized(model, examples, steps=10))
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    assert graph.with_precision("float") == []
    assert len(graph.with_precision("int8")) > 80
    assert {kernel.dtype for kernel in graph.kernels()} == {"int8"}
    # Errors of half a step add up over fifty operators, most of all through 1 / sqrt(variance).
    run = Runner(Artifact(stage="quantize", variant="int8", content=content), threads=1)
    expected = finished(examples, training=False).numpy()
    assert np.abs(run(examples) - expected).mean() < 0.1 * np.abs(expected).mean()


def implicit(tokens):
    return encoder(L.Embedding(20, 16, mask_zero=True, name="tokens")(tokens))


def explicit(tokens):
    steps = tf.not_equal(tokens, 0)[:, None, :]
    return encoder(L.Embedding(20, 16, name="tokens")(tokens), attention_mask=steps)


# For each: the layers, the type of the tokens, and what of it stays float.
PADDED = {
    "implicit": (implicit, "int32", []),
    "implicit_float": (implicit, "float32", ["tokens_mask"]),
    "explicit": (explicit, "float32", ["tf.math.not_equal"]),
}


def negate_padding(table):
    rows = table.embeddings.numpy()
    table.set_weights([np.concatenate([-rows[:1], rows[1:]])])


@pytest.mark.parametrize("kind", PADDED)
def test_a_transformer_of_padded_tokens_is_int8_but_for_what_makes_the_mask(kind):
    layers, dtype, kept = PADDED[kind]
    model = model_of(layers, (12,), dtype)
    model.get_layer("tokens").set_weights([RNG.normal(size=(20, 16))])
    lengths = np.arange(64)[:, None] % 10 + 2
    examples = np.where(np.arange(12) < lengths, RNG.integers(1, 20, (64, 12)), 0).astype(dtype)
    expected = model(examples, training=False).numpy()
    finished = reloaded(quantized(model, examples))
    assert list(left_float(finished)) == kept
    trained_as = finished(examples, training=False).numpy()
    assert np.abs(trained_as - expected).mean() < 0.1 * expected.std()
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    floats = {operator.kind for operator in graph.with_precision("float")}
    assert floats == ({"CAST", "NOT_EQUAL"} if kept else set())
    assert {kernel.dtype for kernel in graph.kernels()} == {"int8"}
    run = Runner(Artifact(stage="quantize", variant="int8", content=content), threads=1)
    assert np.abs(run(examples) - trained_as).mean() < 0.1 * np.abs(trained_as).mean()
    negate_padding(finished.get_layer("tokens"))
    np.testing.assert_array_equal(finished(examples, training=False), trained_as)


def masked_lstm(x, steps):
    return L.LSTM(4, name="taking")(x, mask=steps)


def masked_softmax(x, steps):
    return L.Softmax(name="taking")(x, mask=tf.tile(steps[:, :, None], (1, 1, 8)))


@pytest.mark.parametrize("layers", [masked_lstm, masked_softmax])
def test_a_mask_that_is_given_by_hand_is_told_and_not_lost(layers):
    model = model_of(lambda x: layers(x, x[:, :, 0] > -1.0), (4, 8))
    examples = examples_for(model)
    expected = model(examples).numpy()
    finished = reloaded(quantized(model, examples))
    assert left_float(finished) == {"taking": "a mask of steps reaches it"}
    assert np.abs(finished(examples) - expected).mean() < 0.1 * expected.std()


def test_a_mask_reaches_what_takes_it_past_layers_that_are_built_of_others():
    def layers(tokens):
        x = norm(L.Embedding(9, 4, mask_zero=True, name="table")(tokens))
        x = L.LayerNormalization()(timed(L.Dense(4))(x))
        x = L.Activation("hard_sigmoid")(L.Dense(4)(x))
        return L.GlobalAveragePooling1D(name="mean")(x)

    model = model_of(layers, (6,), "int32")
    examples = np.minimum(examples_for(model), 8) * (np.arange(6) < 4)
    expected = model(examples).numpy()
    finished = reloaded(quantized(model, examples))
    assert left_float(finished) == {"mean": "a mask of steps reaches it"}
    trained_as = finished(examples).numpy()
    assert np.abs(trained_as - expected).mean() < 0.1 * expected.std()
    negate_padding(finished.get_layer("table"))
    np.testing.assert_array_equal(finished(examples), trained_as)


@pytest.mark.parametrize("trained_so", [True, False])
def test_rows_of_a_table_are_not_rounded_to_other_rows(trained_so):
    table = L.Embedding(3000, 8, name="table")
    model = model_of(lambda x: L.GlobalAveragePooling1D()(table(x)), (6,))
    examples = RNG.integers(0, 3000, (32, 6)).astype(np.float32)
    finished = reloaded(quantized(model, examples, steps=3)) if trained_so else model
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    assert steps_off(finished, examples, content).max() <= 4
    computing = {op.kind for op in flatbuffer.read(content).with_precision("float")}
    assert computing <= {"CAST", "QUANTIZE"}


def small(x):
    x = L.Conv2D(40, 3, use_bias=False, name="conv")(x)
    x = L.ReLU(name="relu")(norm(x))
    x = L.Conv2D(17, 1, name="pointwise")(x)
    return L.ReLU(6.0)(norm(L.DepthwiseConv2D(3, name="depthwise")(x)))


def test_kernels_of_4_bits_are_stored_and_run_in_4_bits():
    model = model_of(small, (8, 8, 3))
    examples = examples_for(model)
    exception = Bits(layers=("conv", "depth*"), weights=8)
    finished = reloaded(quantized(model, examples, steps=3, weights=4, layers=(exception,)))
    assert four_bits(finished) == {"pointwise", "logits"}
    content = Int8().convert(finished, examples)
    kernels = {kernel.name: kernel for kernel in flatbuffer.read(content).kernels()}
    assert {name: kernel.dtype for name, kernel in kernels.items()} == {
        "conv": "int8", "pointwise": "int4", "depthwise": "int8", "logits": "int4",
    }  # fmt: skip
    assert max(kernel.codes for kernel in kernels.values() if kernel.dtype == "int4") <= 15
    assert steps_off(finished, examples, content).max() <= 2
    wide = Int8().convert(reloaded(quantized(model, examples)), examples)
    assert len(content) < len(wide)


@pytest.mark.parametrize("levels", [4, 16])
def test_zeros_and_shared_values_reach_the_file_on_pointwise_kernels_too(levels):
    model = model_of(small, (8, 8, 3))
    for name in ("conv", "pointwise", "logits"):
        kernel = model.get_layer(name).kernel
        values = RNG.choice(RNG.normal(size=levels - 1), kernel.shape)
        kernel.assign(values * (RNG.random(values.shape) > 0.5))
    examples = examples_for(model)
    finished = quantized(model, examples, steps=5)
    stored = {k.name: k for k in flatbuffer.read(Int8().convert(finished, examples)).kernels()}
    for before in measure(model).kernels:
        if before.layer != "depthwise":
            assert stored[before.layer].zeros >= before.zeros
            assert stored[before.layer].codes <= before.distinct <= levels


@pytest.mark.parametrize("weights", [8, pytest.param(4, marks=pytest.mark.slow)])
def test_zeros_of_a_recurrent_layer_reach_the_file(weights):
    model = model_of(L.Bidirectional(L.LSTM(6), name="both"), (3, 4))
    for kernel in kernel_variables(model).values():
        kernel.assign(kernel * (RNG.random(kernel.shape) > 0.7))
    examples = examples_for(model)
    finished = reloaded(quantized(model, examples, steps=3, weights=weights))
    content = Int8().convert(finished, examples)
    stored = {kernel.name: kernel for kernel in flatbuffer.read(content).kernels()}
    parts = {f"both_{way}{part}" for way in ("forward", "backward") for part in ("", "_recurrent")}
    assert set(stored) == parts | {"logits"}
    assert {kernel.dtype for kernel in stored.values()} == {f"int{weights}"}
    zeros = sum(kernel.zeros for kernel in measure(model).kernels)
    assert sum(kernel.zeros for kernel in stored.values()) >= zeros
    assert steps_off(finished, examples, content).max() <= 3


def test_forms_of_recurrent_layers_that_are_not_known_stay_float():
    def layers(x):
        x = L.LSTM(4, recurrent_dropout=0.1, return_sequences=True, name="dropping")(x)
        x = L.GRU(4, time_major=True, return_sequences=True, name="turned")(x)
        return L.GRU(4, reset_after=False, name="old")(x)

    model = model_of(layers, (3, 2))
    finished = quantized(model, examples_for(model))
    why = "it isn't known how to compute this form of {} in int8"
    kinds = {"dropping": "LSTM", "turned": "GRU", "old": "GRU"}
    assert left_float(finished) == {name: why.format(kind) for name, kind in kinds.items()}


def test_dense_has_a_scale_for_each_unit():
    model = model_of(small, (8, 8, 3))
    kernel = model.get_layer("logits").kernel
    kernel.assign(kernel * np.float32([1, 10, 100, 1000]))
    examples = examples_for(model)
    found = quantized(model, examples).get_layer("logits").kernel.numpy()
    steps = np.abs(kernel.numpy()).max(0) / 127
    assert np.all(np.abs(found - kernel.numpy()).max(0) < 0.51 * steps)
    np.testing.assert_allclose(found / steps, np.round(found / steps), atol=1e-3)


def test_ranges_begin_where_the_data_is_and_follow_it():
    model = model_of(lambda x: x, (8,))
    examples = examples_for(model) + 5
    stage, samples = Quantize(), tf.data.Dataset.from_tensors((examples, 0))
    made = stage.prepare(model, 100, samples)
    ends = made.get_layer("input_range")
    assert (ends.low.numpy(), ends.high.numpy()) == (min(examples.min(), 0), examples.max())
    for _ in range(50):
        made(examples - 20, training=True)
    assert ends.low.numpy() == pytest.approx((examples - 20).min(), rel=0.01)
    assert 0 <= ends.high.numpy() < 0.01 * examples.max()


@pytest.mark.parametrize("kind", ["timed_rows", "timed_conv"])
def test_what_is_applied_at_each_step_has_a_scale_for_each_channel(kind):
    layers, shape, _ = KINDS[kind]
    model = model_of(layers, shape)
    kernel = model.layers[1].layer.kernel
    kernel.assign(kernel * np.float32([1, 10, 100, 1000, 1000]))
    examples = examples_for(model)
    graph = flatbuffer.read(Int8().convert(quantized(model, examples), examples))
    (stored,) = (each for each in graph.kernels() if each.name != "logits")
    assert (stored.dtype, stored.shape[0]) == ("int8", 5)
    assert stored.scale_greatest > 100 * stored.scale_least


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (Bits(layers=("cnv",)),)}, "received 'cnv'; did you mean 'conv'"),
        ({"layers": (Float(layers=("nothing*",)),)}, r"received 'nothing\*'"),
    ],
)
def test_an_exception_for_no_layer_is_refused(options, message):
    model = model_of(small, (8, 8, 3))
    with pytest.raises(ConfigError, match=message):
        Quantize(**options).prepare(model, 1, None)


@pytest.mark.parametrize(
    ("stage", "impossible"),
    [
        (Quantize(weights=6), [("weights", "4 or 8 bits")]),
        (Quantize(activations=9), [("activations", "8 or 16 bits")]),
        (Quantize(layers=(Bits(layers=("a",), weights=4),)), []),
    ],
)
def test_rules_say_which_bits_there_are(stage, impossible):
    assert list(stage.rules()) == impossible


def test_16_bit_activations_take_8_bit_kernels_only():
    ((field, expected),) = Quantize(activations=16, weights=4).rules()
    assert field == "activations"
    assert expected.startswith("8 with kernels of 4 bits")


def test_zeros_survive_because_they_were_measured():
    sparse = check_stage(Prune(sparsity=0.75, growth=AtOnce()))
    quantized = check_stage(Quantize(epochs=4), sparse)
    assert is_quantized(quantized)
    assert not is_quantized(sparse)
    before, after = kernel_variables(sparse), kernel_variables(quantized)
    assert before.keys() == after.keys()
    assert all(
        np.all(after[name].numpy()[value.numpy() == 0] == 0) for name, value in before.items()
    )


def test_what_is_finished_is_plain_layers_with_ranges_between():
    finished = check_stage(Quantize())
    kinds = [type(layer).__name__ for layer in finished.layers if not isinstance(layer, Range)]
    assert kinds == ["InputLayer", "Conv2D", "ReLU", "GlobalAveragePooling2D", "Dense"]


def test_what_is_frozen_stays_frozen_in_all_its_parts():
    def layers(x):
        x = L.LayerNormalization(name="norm")(L.MultiHeadAttention(2, 4, name="attention")(x, x))
        return L.GRU(4, name="gru")(L.Conv1D(8, 3, name="conv")(x))

    model = model_of(layers, (6, 8))
    for layer in model.layers[:-1]:
        layer.trainable = False
    prepared = Quantize().prepare(model, 10, tf.data.Dataset.from_tensors((examples_for(model), 0)))
    assert {w.name.split("/")[0] for w in prepared.trainable_weights} == {"logits"}


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        (Float(layers=("query",)), r"layers\[0\]: expected names .*, received 'query'"),
        (Float(layers=("input",)), r"layers\[0\]: expected names .*, received 'input'"),
        (Bits(layers=("norm", "add"), weights=4), r"layers\[0\]: .* received '(norm|add)'"),
    ],
)
def test_an_exception_that_excepts_nothing_is_refused(exception, message):
    def layers(x):
        y = L.MultiHeadAttention(2, 4, name="attention")(x, x)
        return L.Flatten()(L.LayerNormalization(name="norm")(L.Add(name="add")([x, y])))

    with pytest.raises(ConfigError, match=message):
        Quantize(layers=(exception,)).prepare(model_of(layers, (6, 8)), 10, None)


def test_what_was_trained_to_stay_float_is_refused_by_a_variant_that_cannot_keep_it():
    model = model_of(L.Flatten(), (6, 8))
    examples = examples_for(model)
    finished = quantized(model, examples, layers=(Float(layers=("logits",)),))
    with pytest.raises(ConfigError, match="kernels all have 8 bits, .* 'logits' was trained for"):
        Int16x8().check(finished)


def test_what_has_no_form_of_16_bits_stays_float_and_is_told():
    def layers(x):
        return L.PReLU("uniform", name="prelu")(tf.nn.space_to_depth(L.Conv2D(4, 3)(x), 2))

    model = model_of(layers, (8, 8, 3))
    examples = examples_for(model)
    finished = quantized(model, examples, activations=16)
    told, graph = left_float(finished), flatbuffer.read(Int16x8().convert(finished, examples))
    assert told["prelu"] == "TFLite's converter quantizes no PReLU to 16 bits"
    assert {"PRELU", "SPACE_TO_DEPTH"} <= {op.kind for op in graph.with_precision("float")}
    assert len(told) == 2


def test_kernels_of_4_bits_are_refused_where_they_are_of_several_groups():
    model = model_of(lambda x: L.Conv2D(6, 3, groups=3, name="grouped")(x), IMAGE)
    with pytest.raises(ConfigError, match="received 'grouped', a Conv2D of 3 groups; give it 8"):
        prepared(model, examples_for(model), weights=4)


def test_means_of_what_a_mask_leaves_stay_float_and_are_told():
    inputs = keras.Input((6,), name="input")
    x = L.Embedding(9, 4, mask_zero=True, name="table")(inputs)
    x = L.GlobalAveragePooling1D(name="mean")(x)
    model = keras.Model(inputs, L.Dense(3, name="logits")(x))
    examples = np.random.default_rng(0).integers(0, 9, (8, 6)).astype(np.float32)
    assert left_float(quantized(model, examples)) == {"mean": "a mask of steps reaches it"}
