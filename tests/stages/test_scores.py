import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.stages.scores import fisher


@pytest.mark.parametrize("trainable", [True, False])
def test_equals_the_exact_fisher_of_a_softmax_regression(trainable):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(inputs))
    model.trainable = trainable
    examples = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensors((examples, np.zeros(64))).repeat()
    found = fisher(model, batches, batches=1500)["logits/kernel"]
    shares = tf.nn.softmax(model(examples)).numpy()
    exact = np.einsum("ni,nj->ij", examples**2, shares * (1 - shares)) / len(examples)
    np.testing.assert_allclose(found, exact, rtol=0.15)
    assert np.abs(found / exact - 1).mean() < 0.05
