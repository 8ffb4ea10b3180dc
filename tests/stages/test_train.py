import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.stages import SGD, Adam, AdamW, Constant, Cosine, Stage
from tfopt.stages.ready import compile_model


def linear(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.layers.Dense(3, input_shape=(4,), name="logits")])


def compiled(stage, model):
    compile_model(stage, model, steps=1)
    return model


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4)).astype(np.float32), (np.arange(8) % 3).astype(np.int32)


def test_the_batch_and_the_rates_follow_the_replicas():
    asked = {"name": "a", "data": None, "model": None, "stages": [], "batch_size": 32}
    assert Experiment(**asked).global_batch(4) == 32
    grown = Experiment(**asked, replica_batch_size=16)
    assert [grown.global_batch(n) for n in (1, 2, 4)] == [16, 32, 64]
    assert [grown.learning_rate_scale(n) for n in (1, 2, 4)] == [0.5, 1, 2]
    grown.scale_learning_rate = False
    assert grown.learning_rate_scale(4) == 1


@pytest.mark.parametrize(
    ("asked", "epochs", "at_once"), [(0, 9, 1), (0, 10, 16), (4, 1, 4), (400, 1, 100)]
)
def test_long_stages_make_many_steps_at_once(asked, epochs, at_once):
    model = linear(0)
    compile_model(Stage(epochs=epochs, steps_per_execution=asked), model, steps=100)
    assert int(model._steps_per_execution) == at_once


def test_label_smoothing_is_the_formula(batch):
    examples, labels = batch
    model = compiled(Stage(label_smoothing=0.2), linear(1))
    probabilities = softmax(model.predict(examples, verbose=0))
    targets = np.eye(3)[labels] * 0.8 + 0.2 / 3
    expected = -(targets * np.log(probabilities)).sum(-1).mean()
    assert model.evaluate(examples, labels, verbose=0)[0] == pytest.approx(expected, rel=1e-5)


def test_cosine_warms_up_to_the_peak_and_ends_at_the_floor():
    rate = Cosine(warmup=0.1, floor=0.01).over(0.5, 100)
    assert [float(rate(s)) for s in (0, 5, 10, 55, 100)] == pytest.approx(
        [0, 0.25, 0.5, 0.5 * (0.01 + 0.99 / 2), 0.005]
    )
    assert float(Cosine(warmup=0).over(0.5, 10)(0)) == 0.5
    assert Constant().over(0.5, 10) == 0.5


def test_a_larger_batch_has_larger_rates_after_a_warmup():
    def rates(stage, scale, steps=(0, 5, 10, 100)):
        model = linear(1)
        compile_model(stage, model, steps=200, scale=scale)
        rate = model.optimizer._learning_rate
        return [float(rate(step)) if callable(rate) else float(rate) for step in steps]

    assert rates(Stage(learning_rate=0.1), 1.0) == pytest.approx([0.1] * 4)
    assert rates(Stage(learning_rate=0.1), 0.5) == pytest.approx([0.05] * 4)
    assert rates(Stage(learning_rate=0.1), 4.0) == pytest.approx([0.1, 0.25, 0.4, 0.4])
    cosine = Stage(learning_rate=0.1, schedule=Cosine(warmup=0))
    once, scaled = rates(cosine, 1.0), rates(cosine, 4.0)
    assert scaled[0] == pytest.approx(once[0]) and scaled[3] == pytest.approx(4 * once[3])


@pytest.mark.parametrize("optimizer", [SGD(weight_decay=0.1), AdamW(weight_decay=0.1)])
def test_weight_decay_spares_biases(optimizer):
    model = compiled(Stage(optimizer=optimizer, learning_rate=0.1), linear(1))
    kernel, bias = model.trainable_variables
    bias.assign(tf.ones_like(bias))
    before = kernel.numpy()
    model.optimizer.apply_gradients(
        zip([tf.zeros_like(kernel), tf.zeros_like(bias)], [kernel, bias], strict=True)
    )
    assert np.allclose(kernel, before * (1 - 0.1 * 0.1))
    assert np.all(bias.numpy() == 1)


def test_adam_without_decay_leaves_weights_without_gradient():
    model = compiled(Stage(optimizer=Adam(), learning_rate=0.1), linear(1))
    before = model.get_weights()
    variables = model.trainable_variables
    model.optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
    assert all(map(np.array_equal, before, model.get_weights()))
