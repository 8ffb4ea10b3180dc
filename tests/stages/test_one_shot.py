import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.data import Digits, Spec
from tfopt.facts import kernel_variables, measure
from tfopt.graph import rebuilt
from tfopt.models import SmallCNN
from tfopt.stages import NofM, OneShotPrune, Uniform
from tfopt.stages.patterns import losing
from tfopt.testing import check_stage


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    splits = Digits().load(64)
    model = SmallCNN(filters=(16, 16), units=32)(splits.spec)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, weighted_metrics=["accuracy"])
    model.fit(splits.train(0), epochs=12, steps_per_epoch=splits.steps_per_epoch, verbose=0)
    return model, splits


def accuracy(model, splits):
    hits = [(model(x).numpy().argmax(-1) == y)[w.numpy() > 0] for x, y, w in splits.test]
    return np.concatenate(hits).mean()


def by_magnitude(model, stage, splits):
    pruned = rebuilt(model)
    zeros = {kernel.layer: count for kernel, count in stage.zeros(model, splits.samples).items()}
    for name, kernel in kernel_variables(pruned).items():
        costs = tf.reshape(tf.square(kernel), [-1, *kernel.shape[-2:]])
        gone = losing(stage.pattern, costs, zeros[name.split("/")[0]])
        kernel.assign(kernel * tf.cast(~tf.reshape(gone, kernel.shape), kernel.dtype))
    return pruned


@pytest.mark.parametrize(
    "stage",
    [OneShotPrune(sparsity=0.7, allocation=Uniform()), OneShotPrune(pattern=NofM())],
)
def test_keeps_more_of_the_accuracy_than_magnitude_does(trained, stage):
    model, splits = trained
    before = model.get_weights()
    pruned = stage.prepare(model, 0, splits.samples)
    stage.check(measure(model), measure(pruned))
    assert accuracy(pruned, splits) > accuracy(by_magnitude(model, stage, splits), splits) + 0.05
    assert all(map(np.array_equal, before, model.get_weights())), "the input is as it was"


def test_layers_of_all_kinds_are_pruned_and_trained_on_with_their_zeros():
    inputs = keras.Input((8, 8, 4), name="input")
    shared = keras.layers.Conv2D(4, 3, padding="same", groups=2, name="shared")
    x = shared(tf.nn.relu(shared(inputs)))
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    nested = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Conv2D(8, 3, name="inner")])
    x = keras.layers.Dense(4, name="pixelwise")(nested(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    spec = Spec(shape=(8, 8, 4), class_names=("a", "b", "c", "d"), train_size=16)
    stage = OneShotPrune(epochs=1, sparsity=0.5, allocation=Uniform())
    zeros = {
        k.layer: k.zeros / k.size for k in measure(check_stage(stage, model, spec=spec)).kernels
    }
    share = 0.5 * (72 + 36 + 288 + 32 + 16) / (72 + 288 + 32 + 16)
    for name in ("shared", "inner", "pixelwise", "logits"):
        assert zeros[name] == pytest.approx(share, abs=0.04), name
    assert zeros["depthwise"] == 0


def test_what_it_cannot_correct_is_told(caplog):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8), name="input")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(32, name="logits")(x))
    samples = tf.data.Dataset.from_tensors((np.ones((2, 6, 8), np.float32), np.zeros(2)))
    OneShotPrune(sparsity=0.2).prepare(model, 0, samples)
    assert "attention stay dense, 50% of all weights" in caplog.text
    assert "of these 40% go" in caplog.text
