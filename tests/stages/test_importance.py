import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.stages import L1, BatchNormScale, Taylor
from tfopt.stages.channels import STAYS, coupled


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), name="input")
    x = keras.layers.Dense(3, name="one")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Add(name="add")([x, keras.layers.Dense(3, name="other")(inputs)])
    x = keras.layers.Dense(2, name="plain")(keras.layers.ReLU(name="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def rated(score, model, samples=None):
    """Return the worth of the three channels that are added, and of the plain two."""
    found = coupled(model, lambda layer: False)
    rates = score.rate(model, found, samples)
    made = {axis.layer.name: axis.channels for axis in found.axes if axis.makes}
    assert made["one"].tolist() == made["other"].tolist()
    assert np.all(made["logits"] == STAYS)
    return rates[made["one"]], rates[made["plain"]]


def test_l1_is_the_mean_over_the_kernels_that_make_a_channel(model):
    sums = [np.abs(model.get_layer(name).kernel.numpy()).sum(0) for name in ("one", "other")]
    expected = sum(each / each.mean() for each in sums) / 2
    added, plain = rated(L1(), model)
    np.testing.assert_allclose(added, expected, rtol=1e-6)
    assert plain.mean() == pytest.approx(1)


def test_batch_norm_scale_knows_only_what_is_normalised(model):
    model.get_layer("bn").gamma.assign([0.5, -2.0, 0.0])
    added, plain = rated(BatchNormScale(), model)
    assert added.tolist() == [0.5, 2.0, 0.0]
    assert np.isnan(plain).all()


def test_batch_norm_scale_needs_one(model):
    plain = keras.Model(model.input, model.get_layer("other").output, name="plain")
    with pytest.raises(ConfigError, match=r"received 'plain', which has none; rate by L1\(\)"):
        BatchNormScale().rate(plain, coupled(plain, lambda layer: False), None)


def test_taylor_finds_what_nothing_depends_on(model):
    reads = model.get_layer("plain").kernel
    reads.assign(reads.numpy() * [[1], [0], [1]])  # nobody reads the second
    for name in ("one", "other"):  # nobody makes the third
        weights = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([weight * [1, 1, 0] for weight in weights])
    batch = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32), np.zeros(32)
    added, plain = rated(Taylor(batches=2), model, tf.data.Dataset.from_tensors(batch).repeat())
    assert added[1] == added[2] == 0
    assert min(added[0], *plain) > 0
