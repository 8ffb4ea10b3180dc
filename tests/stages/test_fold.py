import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.models import PRESETS
from tfopt.stages.fold import folded
from tfopt.testing import _SPEC

EXAMPLES = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)


def awkward():
    """Kernels of all kinds, and BatchNormalizations that none can take in."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="input")
    x = layers.Conv2D(4, 3, activation="relu", name="activated")(inputs)
    x = layers.BatchNormalization(name="after_relu")(x)
    x = layers.Conv2DTranspose(6, 2, use_bias=False, name="transpose")(x)
    x = layers.BatchNormalization(scale=False, name="transpose_bn")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(center=False, name="depthwise_bn")(x)
    y = layers.Conv2D(12, 1, name="two_takers")(x)
    x = layers.Add(name="add")([layers.BatchNormalization(name="one_of_two")(y), y])
    shared = layers.Conv2D(12, 1, name="shared")
    x = layers.BatchNormalization(name="of_shared")(shared(shared(x)))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, name="hidden")(x)
    x = layers.BatchNormalization(name="hidden_bn")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def moved(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize(
    "build", [awkward, *(lambda n=n: PRESETS[n](_SPEC) for n in ("resnet8", "mobilenet_v2_035"))]
)
def test_a_folded_model_computes_the_same(build):
    model = moved(build())
    expected = model(EXAMPLES).numpy()
    np.testing.assert_allclose(folded(model)(EXAMPLES), expected, rtol=1e-4)
    np.testing.assert_array_equal(model(EXAMPLES), expected)


def test_folds_where_a_kernel_stands_alone_before_it():
    left = [layer.name for layer in folded(awkward()).layers if "BatchNorm" in str(type(layer))]
    assert left == ["after_relu", "one_of_two", "of_shared"]
    assert not any("bn" in layer.name for layer in folded(PRESETS["resnet8"](_SPEC)).layers)
