import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.data import Spec
from tfopt.export import EdgeQuantized, Int8, MinMax
from tfopt.facts import measure
from tfopt.stages import Cluster, CorrectBias
from tfopt.stages.bias import rounded
from tfopt.testing import check_stage
from tfopt.tflite import flatbuffer

RNG = np.random.default_rng(0)
EXAMPLES = RNG.uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)
SAMPLES = tf.data.Dataset.from_tensor_slices((EXAMPLES, np.zeros(64, np.int32))).batch(16)


def small():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3), name="input")
    x = layers.Conv2D(6, 3, padding="same", strides=2, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize(
    ("bits", "variant"), [(8, Int8()), (4, EdgeQuantized(weights=MinMax()))], ids=["int8", "int4"]
)
def test_rounds_as_the_file_does(bits, variant):
    model = small()
    operators = flatbuffer.read(variant.convert(model, EXAMPLES)).operators
    kernel = next(op for op in operators if op.label.endswith("logits")).kernel
    layer, stored = model.get_layer("logits"), kernel.values * np.reshape(kernel.scales, (-1, 1))
    np.testing.assert_allclose(rounded(layer, layer.kernel.numpy(), bits).T, stored, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_layers_have_the_means_of_the_model(bits):
    """The one test by hand: round all kernels, and see where each channel is in the mean."""
    corrected = CorrectBias(bits=bits).prepare(small(), 0, SAMPLES)
    plain = CorrectBias(bits=bits, batches=1).prepare(small(), 0, SAMPLES.take(0))
    for name in ("conv", "depthwise", "logits"):
        layer, right = plain.get_layer(name), corrected.get_layer(name)
        inputs = keras.Model(plain.inputs, layer.input)(EXAMPLES)
        expected = layer(inputs).numpy()
        kernel, bias = layer.get_weights()
        off = []
        for other in (bias, right.get_weights()[1]):
            layer.set_weights([rounded(layer, kernel, bits), other])
            off.append(np.abs((layer(inputs).numpy() - expected).reshape(-1, len(bias)).mean(0)))
        layer.set_weights([kernel, bias])
        assert off[1].max() < 1e-5 < off[0].max(), name


def test_keeps_the_contract():
    check_stage(CorrectBias())


def test_shared_values_stay_though_folding_scales_the_channels():
    spec = Spec(shape=(8, 8, 3), class_names=("a", "b", "c", "d"), train_size=16)
    clustered = check_stage(Cluster(clusters=8, epochs=0), small(), spec=spec)
    bn = clustered.get_layer("bn")
    bn.moving_variance.assign(np.linspace(0.5, 2, 6))
    kernels = measure(check_stage(CorrectBias(), clustered, spec=spec)).kernels
    assert [kernel.distinct <= 8 for kernel in kernels] == [True, True, True]
    assert kernels[0].distinct_total > 8
