import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.export import Artifact, EdgeQuantized, Int8, MinMax
from tfopt.runner import Runner
from tfopt.stages import Equalize
from tfopt.testing import check_stage

RNG = np.random.default_rng(0)
EXAMPLES = RNG.standard_normal((64, 8, 8, 3)).astype(np.float32)
SAMPLES = tf.data.Dataset.from_tensor_slices((EXAMPLES, np.zeros(64, np.int32))).batch(16)
STRIDES = 2.0 ** np.arange(-5, 6, 2)


def unbalanced(ceiling=None):
    """A model that computes what a balanced one does, with channels of very unequal ranges."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3), name="input")
    x = layers.Conv2D(6, 3, name="first", use_bias=False)(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(ceiling, name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise", activation="relu")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(6, 1, name="second")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    x = layers.Flatten(name="flatten")(x)
    model = keras.Model(inputs, layers.Dense(4, name="logits")(x))
    if ceiling is None:
        scale = model.get_layer("bn").gamma
        scale.assign(scale * STRIDES)
        for name, factors in (("depthwise", 1 / STRIDES[:, None]), ("second", STRIDES[None])):
            kernel = model.get_layer(name).weights[0]
            kernel.assign(kernel * factors)
        kernel = model.get_layer("logits").kernel
        kernel.assign(kernel / np.resize(STRIDES, kernel.shape[0])[:, None])
    return model


def equalized(model, **options):
    return Equalize(**options).prepare(model, 0, SAMPLES)


def error(model, variant):
    run = Runner(
        Artifact(stage="s", variant="v", content=variant.convert(model, EXAMPLES)), threads=1
    )
    expected = model(EXAMPLES).numpy()
    return np.linalg.norm(run(EXAMPLES) - expected) / np.linalg.norm(expected)


def test_computes_the_same_and_its_channels_have_ranges_alike():
    model = unbalanced()
    made = equalized(model)
    np.testing.assert_allclose(made(EXAMPLES), model(EXAMPLES), rtol=1e-4, atol=1e-5)
    out, into = (np.abs(made.get_layer(n).get_weights()[0]) for n in ("first", "depthwise"))
    np.testing.assert_allclose(out.max((0, 1, 2)), into.max((0, 1, 3)), rtol=1e-2)
    into = np.abs(made.get_layer("logits").get_weights()[0]).reshape(-1, 6, 4).max((0, 2))
    out = np.abs(made.get_layer("second").get_weights()[0]).max((0, 1, 2))
    np.testing.assert_allclose(out, into, rtol=1e-2)


@pytest.mark.parametrize("variant", [Int8(), EdgeQuantized(weights=MinMax())], ids=lambda v: v.name)
def test_the_error_of_the_file_falls(variant):
    before, after = error(unbalanced(), variant), error(equalized(unbalanced()), variant)
    assert after < before / 4


def test_a_ceiling_is_taken_off_where_it_is_hardly_reached_and_ends_the_chain_else():
    high = equalized(unbalanced(ceiling=100.0))
    assert high.get_layer("relu").max_value is None
    low = unbalanced(ceiling=0.5)
    made = equalized(low)
    assert made.get_layer("relu").max_value == 0.5
    np.testing.assert_allclose(made(EXAMPLES), low(EXAMPLES), rtol=1e-4, atol=1e-5)
    assert equalized(low, ceilings=1.0).get_layer("relu").max_value is None


def test_a_model_without_a_pair_is_refused():
    inputs = keras.Input((8, 8, 3), name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    with pytest.raises(ConfigError, match="stage 'equalize': expected two layers with kernels"):
        equalized(keras.Model(inputs, keras.layers.Dense(4, name="logits")(x)))


def test_keeps_the_contract():
    check_stage(Equalize())
