import numpy as np
import pytest

from tests.stages.test_hold import compressed
from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.data import Digits, from_arrays
from tfopt.errors import ConfigError
from tfopt.facts import measure
from tfopt.models import SmallCNN
from tfopt.spec import spec
from tfopt.stages import EMA, SGD, SWA, AtOnce, Cluster, OneShotPrune, Prune, Quantize, Stage
from tfopt.stages.average import recompute_statistics
from tfopt.stages.carry_out import carry_out
from tfopt.stages.train import Place, train
from tfopt.testing import check_stage


def averaged(average, values, steps):
    """Return the average of `values`, taken after each 2 of `steps` steps, from 100 on."""
    found = 100.0
    for number, value in enumerate(values):
        share = average.share(2 * number + 2, 2 * number, steps)
        found = (1 - share) * found + share * value
    return found


def test_swa_is_the_mean_from_its_start_on():
    assert averaged(SWA(start=0.5), [1, 2, 3, 4, 6, 8], 12) == pytest.approx(6)
    assert averaged(SWA(start=0.0), [1, 2, 3], 6) == pytest.approx(2)
    assert averaged(SWA(start=0.99), [1, 2, 3], 6) == pytest.approx(3)


def test_ema_is_the_sum_with_weights_that_decay_and_forgets_the_start():
    values = np.random.default_rng(0).normal(size=5000)
    weights = 0.9 ** (2 * np.arange(len(values))[::-1])
    assert averaged(EMA(decay=0.9), values, 1) == pytest.approx(
        (values * weights).sum() / weights.sum(), abs=1e-9
    )
    assert averaged(EMA(decay=0.99999), np.ones(500), 1) == pytest.approx(1, abs=1e-3)


@spec
class Watched(Stage):
    """Keep the weights of every epoch in `seen`."""

    seen: list

    def callbacks(self, log_dir):
        seen = self.seen

        class Watch(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(self.model.get_weights())

        return [Watch()]


def linear():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,), name="input")
    x = keras.layers.Dense(6, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize("average", [EMA(decay=0.5), SWA(start=0.2)])
def test_the_model_ends_with_the_average(average, splits, tmp_path):
    model, seen = linear(), []
    start = model.get_weights()
    options = {"epochs": 4, "learning_rate": 0.1, "optimizer": SGD(), "steps_per_execution": 16}
    stage = Watched(seen=seen, average=average, **options)
    train(stage, model, [], splits, Place(workdir=tmp_path))
    found = model.get_weights()
    for index in (0, 1, 2, 3, 6, 7):  # not the statistics
        expected = start[index]
        for epoch, weights in enumerate(seen):
            share = average.share(4 * epoch + 4, 4 * epoch, 16)
            expected = (1 - share) * expected + share * weights[index]
        assert np.allclose(found[index], expected, atol=1e-6)
    assert not np.allclose(found[6], seen[-1][6], atol=1e-3)


def test_statistics_are_those_of_all_samples():
    model, rng = linear(), np.random.default_rng(0)
    examples = rng.normal(3, 2, size=(64, 5)).astype(np.float32)
    samples = tf.data.Dataset.from_tensor_slices((examples, np.zeros(64))).batch(16)
    recompute_statistics(model, samples)
    layer, hidden = model.get_layer("bn"), model.get_layer("hidden")(examples).numpy()
    assert np.allclose(layer.moving_mean, hidden.mean(0), atol=1e-5)
    assert np.allclose(layer.moving_variance, hidden.var(0), rtol=1e-4)
    assert layer.momentum == 0.99


@pytest.mark.parametrize(
    "stage",
    [
        Stage(epochs=2, average=EMA(), learning_rate=0.01),
        Cluster(epochs=2, clusters=5, average=SWA(start=0.0), learning_rate=0.01),
        Quantize(epochs=2, average=SWA(start=0.0), learning_rate=0.01),
    ],
)
def test_zeros_and_shared_values_outlive_it(stage):
    model = compressed(0.5, (0.1, 0.3))
    before = measure(model)
    made = check_stage(stage, model)
    for kernel, there in zip(measure(made).kernels[:2], before.kernels, strict=False):
        assert kernel.zeros == there.zeros
        assert kernel.distinct <= 5


def test_the_last_zeros_of_pruning_are_those_of_the_average():
    check_stage(Prune(epochs=3, sparsity=0.75, average=EMA(), growth=AtOnce(begin=0.5)))


def test_is_refused_where_nothing_is_trained():
    stage = Stage(epochs=0, average=EMA())
    experiment = Experiment(name="x", data=Digits(), model=SmallCNN(), stages=[stage])
    with pytest.raises(ConfigError, match=r"stages\[0\].average: expected None for a stage of 0"):
        experiment.validate()


@pytest.mark.parametrize(
    "stage",
    [
        Stage(average=SWA(start=0.0)),
        Quantize(average=SWA(start=0.0)),
        Cluster(clusters=4, epochs=0),
        OneShotPrune(sparsity=0.3),
    ],
)
def test_statistics_that_training_left_behind_are_measured_anew(stage, tmp_path):
    model = linear()
    norm = model.get_layer("bn")
    norm.momentum = 1.0
    norm.moving_mean.assign(norm.moving_mean + 100.0)
    pair = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32), np.arange(64) % 3
    splits = from_arrays(
        train=pair,
        test=pair,
        validation=pair,
        class_names=("a", "b", "c"),
        batch_size=16,
        augment=lambda examples, seed: examples + 2.0,
    )
    made = carry_out(stage, model, [], splits, Place(workdir=tmp_path, trained=True)).model
    logits = np.concatenate([made(batch).numpy() for batch, _ in splits.augmented])
    assert logits.std(0).min() > 0.1  # and not what is left where ReLU lets nothing through
    if not stage.quantizes:  # which folds it
        hidden = [made.get_layer("hidden")(batch) for batch, _ in splits.augmented]
        assert np.allclose(made.get_layer("bn").moving_mean, np.mean(hidden, (0, 1)), atol=1e-3)
