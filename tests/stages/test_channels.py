import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.data import Spec
from tfopt.facts import measure, weight_name
from tfopt.models import PRESETS
from tfopt.stages import budget
from tfopt.stages.channels import STAYS, coupled
from tfopt.stages.shrink import without

L = keras.layers


def image(channels=3):
    return keras.Input((8, 8, channels), name="input")


def closed(inputs, x):
    if len(x.shape) > 2:
        x = L.Flatten(name="flat")(x)
    return keras.Model(inputs, L.Dense(4, name="logits")(x))


def squeeze_and_excite():
    inputs = image()
    x = L.Conv2D(6, 3, activation="swish", name="conv")(inputs)
    maps = L.GlobalAveragePooling2D(keepdims=True, name="maps")(x)
    maps = L.Conv2D(6, 1, activation="hard_sigmoid", name="excite")(maps)
    x = L.Multiply(name="by_maps")([x, maps])
    flat = L.Dense(4, activation="relu", name="squeeze")(L.GlobalMaxPooling2D(name="flat")(x))
    flat = L.Reshape((1, 1, 6), name="reshape")(L.Dense(6, activation="sigmoid", name="gate")(flat))
    spot = L.Conv2D(1, 1, activation="sigmoid", name="spot")(x)
    x = L.Multiply(name="by_flat")([L.Multiply(name="by_spot")([x, spot]), flat])
    return closed(inputs, L.GlobalAveragePooling2D(name="pool")(x)), 6 + 4


def dense_net():
    inputs = image()
    x = L.Conv2D(5, 3, padding="same", name="stem")(inputs)
    for block in "ab":
        y = L.BatchNormalization(name=f"{block}_bn")(x)
        y = L.ReLU(name=f"{block}_relu")(y)
        y = L.Conv2D(3, 3, padding="same", use_bias=False, name=f"{block}_conv")(y)
        x = L.Concatenate(name=f"{block}_concat")([x, y])
    x = L.Add(name="add")([x, L.Conv2D(11, 1, name="wide")(x)])
    tall = L.Concatenate(axis=1, name="tall")(
        [x, L.Cropping2D(1, name="crop")(L.ZeroPadding2D()(x))]
    )
    return closed(inputs, tall), 11


def u_net():
    inputs = image()
    skip = L.Conv2D(6, 3, padding="same", name="down")(inputs)
    x = L.PReLU(shared_axes=(1, 2), name="slopes")(L.AveragePooling2D(name="half")(skip))
    x = L.Conv2DTranspose(6, 2, strides=2, name="up")(x)
    x = L.Maximum(name="most")([L.PReLU(name="all_slopes")(x), skip])
    x = L.UpSampling2D(name="double")(L.Subtract(name="less")([x, skip]))
    return closed(inputs, L.Dropout(0.5, name="drop")(x)), 6


def mobile():
    inputs = image()
    x = L.Conv2D(4, 1, name="stem")(inputs)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="twice")(x)
    x = L.SeparableConv2D(6, 3, depth_multiplier=3, activation="relu6", name="apart")(x)
    x = L.SpatialDropout2D(0.1, name="drop")(L.LeakyReLU(name="leaky")(x))
    return closed(inputs, x), 4 + 6


def sequence():
    inputs = keras.Input((7,), dtype="int32", name="input")
    x = L.Embedding(20, 6, name="embedding")(inputs)
    x = L.Average(name="mean")([x, L.Conv1D(6, 3, padding="same", name="conv")(x)])
    x = L.SeparableConv1D(4, 1, name="apart")(L.DepthwiseConv1D(1, name="each")(x))
    x = L.MaxPooling1D(name="pool")(L.Dense(6, activation="gelu", name="dense")(x))
    x = L.Reshape((-1, 18), name="rows")(L.RepeatVector(3, name="three")(L.Flatten(name="f")(x)))
    return closed(inputs, L.Rescaling(0.5, name="half")(x)), 6 + 4 + 6


def volume():
    inputs = keras.Input((4, 4, 4, 2), name="input")
    x = L.Conv3D(5, 2, name="conv")(inputs)
    x = L.Conv3DTranspose(4, 2, name="up")(L.MaxPooling3D(name="pool")(x))
    return closed(inputs, L.Reshape((2, 2, -1), name="rows")(x)), 5 + 4


def shared():
    inputs = image(4)
    twice = L.Conv2D(4, 3, padding="same", activation="tanh", name="twice")
    inner = keras.Sequential([image(5), L.Conv2D(6, 3, name="inner")], name="nested")
    x = L.Conv2D(5, 1, name="first")(L.ELU(name="elu")(twice(twice(inputs))))
    return closed(inputs, L.GlobalAveragePooling2D(name="pool")(inner(x))), 5 + 6


def operators():
    inputs = image()
    x = L.Conv2D(6, 3, name="conv")(inputs)
    x = x * tf.nn.relu6(x + 3.0) * (1 / 6) - tf.nn.relu(L.Conv2D(6, 3, name="other")(inputs))
    return closed(inputs, 2.0 * x / 3.0), 6


def backwards(x):
    return x[..., ::-1]


def unknown():
    """Wherever channels meet each other, or constants, or something new, they stay."""
    inputs = image()
    x = L.Conv2D(6, 3, activation="softmax", name="softmax")(inputs)
    x = L.Conv2D(6, 1, activation=backwards, name="reverse")(x)
    x = L.Conv2D(6, 1, groups=2, name="groups")(L.Conv2D(6, 1, name="into_groups")(x))
    x = L.Conv2D(6, 1, name="steps")(x) * np.arange(6.0)
    x = L.BatchNormalization(axis=1, name="rows")(x) + backwards(L.Conv2D(6, 1, name="to_add")(x))
    x = L.Activation("softmax", name="mixed")(L.Conv2D(6, 1, name="to_mix")(x))
    x = L.Reshape((-1, 6), name="reshape")(L.GroupNormalization(2, name="norm")(x))
    x = L.LSTM(6, return_sequences=True, name="lstm")(L.Dense(6, name="to_lstm")(x))
    x = L.Reshape((54, 4), name="other_rows")(L.Dense(6, name="to_rows")(x))
    x = x / tf.reduce_max(L.Dense(6, name="to_scalar")(x))
    return closed(inputs, L.Permute((2, 1), name="permute")(L.Dense(6, name="to_permute")(x))), 0


GRAPHS = [squeeze_and_excite, dense_net, u_net, mobile, sequence, volume, shared, operators]


def randomised(model):
    """Give every weight a value that no initializer gives."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight_name(weight) in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight_name(weight) in ("bias", "beta", "moving_mean", "alpha"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def silence(found, removed, side):
    """Set to zero what makes the removed channels, or what reads them."""
    gone = np.isin(np.arange(found.count), removed)
    for axis in found.axes:
        makes = axis.makes or weight_name(axis.weight) in ("bias", "gamma", "beta")
        if makes == (side == "makes"):
            values = axis.weight.numpy()
            np.moveaxis(values, axis.number, 0)[gone[axis.channels]] = 0
            axis.weight.assign(values)


def check_removal(model, side):
    """Silence some channels: removing them changes no logit, and costs what was computed."""
    found = coupled(randomised(model), lambda layer: False)
    kinds = budget.kinds(found)
    cuts = budget.cuts(np.random.default_rng(1).random(found.count), kinds, 2)
    left = cuts.made(max(len(cuts.sizes) // 2, min(3, len(cuts.sizes))), kinds.sizes)
    removed = budget.removed(cuts, kinds.sizes, left)
    silence(found, removed, side)
    small = without(model, found, removed)
    examples = np.random.default_rng(2).integers(0, 9, (4, *model.input_shape[1:]))
    examples = examples.astype(model.inputs[0].dtype.as_numpy_dtype)
    expected = model(examples).numpy()
    np.testing.assert_allclose(small(examples), expected, atol=1e-5 * np.abs(expected).max())
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        assert measure(small).params == budget.params(model, found, kinds)(left)
        assert measure(small).macs == budget.macs(model, found, kinds)(left)
    assert not any(isinstance(layer, keras.Model) for layer in small.layers)
    return len(removed)


@pytest.mark.parametrize("side", ["makes", "reads"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_model_without_its_silent_channels_computes_the_same(graph, side):
    model, _ = graph()
    assert check_removal(model, side) >= 3


@pytest.mark.parametrize("graph", [*GRAPHS, unknown])
def test_finds_all_channels_that_can_be_removed(graph):
    model, free = graph()
    assert coupled(model, lambda layer: False).count == 1 + free


FAST = {"mlp", "small_cnn", "resnet8", "ds_cnn_s"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in PRESETS],
)
def test_every_preset_computes_the_same(name):
    shape = (32, 32, 3) if name == "resnet50_transfer" else (8, 8, 1)
    spec = Spec(shape=shape, class_names=("a", "b", "c", "d"), train_size=8)
    assert check_removal(PRESETS[name](spec), "makes") > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV3Small", "EfficientNetB0", "DenseNet121", "ResNet50V2", "Xception"]
)
def test_keras_applications_compute_the_same(name):
    shape = (71, 71, 3) if name == "Xception" else (32, 32, 3)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=4, classifier_activation=None
    )
    assert check_removal(model, "makes") > 500


def test_excluded_layers_keep_their_channels():
    model, free = mobile()
    found = coupled(model, lambda layer: layer == "twice")
    assert found.count == 1 + free - 4
    made = {axis.layer.name: axis.channels for axis in found.axes if axis.makes}
    assert np.all(made["stem"] == STAYS)
    assert np.all(made["apart"] != STAYS)


def test_normalised_channels_can_be_removed():
    inputs = keras.Input((6,), name="input")
    x = L.LayerNormalization(name="norm")(L.Dense(8, name="hidden")(inputs))
    assert coupled(closed(inputs, x), lambda layer: False).count == 1 + 8
