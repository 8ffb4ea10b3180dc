import numpy as np
import pytest

from tests.stages.test_average import linear
from tfopt.checkpoint import save_model
from tfopt.compat import keras, tf
from tfopt.data import from_arrays
from tfopt.errors import ConfigError
from tfopt.evaluate import logits
from tfopt.fusion import GreedySoup, UniformSoup
from tfopt.spec import spec
from tfopt.stages import Quantize

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 5))


@spec
class Clouds:
    def load(self, batch_size):
        rng = np.random.default_rng(1)
        labels = np.arange(300) % 3
        examples = (CENTRES[labels] + rng.normal(size=(300, 5))).astype(np.float32)
        pair = examples, labels
        return from_arrays(
            train=pair,
            test=pair,
            validation=pair,
            class_names=("a", "b", "c"),
            batch_size=batch_size,
        )


def softmax_regression(noise, seed):
    """A good model whose weights are off by `noise` times a direction of its own."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((5,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(inputs))
    kernel, bias = CENTRES.T, -0.5 * (CENTRES**2).sum(1)
    model.set_weights([w + noise * rng.normal(size=w.shape) for w in (kernel, bias)])
    return model


def accuracy(model):
    outputs, labels = logits(model, Clouds().load(60).validation)
    return np.mean(outputs.argmax(-1) == labels)


def test_uniform_is_the_mean_of_weights(tmp_path):
    one, two = softmax_regression(1, 1), softmax_regression(1, 2)
    save_model(two, tmp_path / "two.h5")
    soup = UniformSoup(models=(one, str(tmp_path / "two.h5"))).load()
    for found, *parts in zip(*(m.get_weights() for m in (soup, one, two)), strict=True):
        assert np.allclose(found, np.mean(parts, axis=0))


def test_greedy_takes_in_what_helps_and_is_never_below_the_best():
    good = [softmax_regression(0.7, seed) for seed in range(4)]
    bad = softmax_regression(20, 9)
    soup = GreedySoup(models=(*good, bad), data=Clouds(), batch_size=60).load()
    accuracies = [accuracy(model) for model in (*good, bad)]
    uniform = UniformSoup(models=(*good, bad)).load()
    assert accuracy(soup) > max(accuracies)
    assert accuracy(soup) > accuracy(uniform)
    alone = GreedySoup(models=(bad, good[0]), data=Clouds(), batch_size=60).load()
    assert accuracy(alone) == accuracy(good[0])


def test_statistics_are_measured_anew():
    one, two = linear(), linear()
    two.set_weights([-2 * w for w in two.get_weights()[:6]] + two.get_weights()[6:])
    soup = UniformSoup(models=(one, two), data=Clouds(), batch_size=60).load()
    examples = np.concatenate([x for x, _ in Clouds().load(60).samples])
    hidden = soup.get_layer("hidden")(examples).numpy()
    assert np.allclose(soup.get_layer("bn").moving_mean, hidden.mean(0), atol=1e-4)
    with pytest.raises(ConfigError, match="expected a source of data, since the models have Batch"):
        UniformSoup(models=(one, two)).load()


def test_models_that_are_no_soup_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        UniformSoup(models=(linear(), softmax_regression(0, 0)), data=Clouds()).load()
    assert "received (5, 3) in UniformSoup.models[1] (model" in str(caught.value)
    assert "and (5, 6) in UniformSoup.models[0] (model" in str(caught.value)
    samples = tf.data.Dataset.from_tensors((np.ones((2, 5), np.float32), 0))
    quantized = Quantize().prepare(linear(), 1, samples)
    with pytest.raises(ConfigError, match="expected a model without quantization-aware layers"):
        UniformSoup(models=(quantized,)).load()
    save_model(quantized, tmp_path / "quantized.h5")
    with pytest.raises(ConfigError, match=r"quantized.h5.* take the one before it was quantized"):
        UniformSoup(models=(str(tmp_path / "quantized.h5"),)).load()
