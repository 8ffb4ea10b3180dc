from pathlib import Path

import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.config import ConfigError, RunError
from tfopt.facts import Facts, Kernel, kernel_variables
from tfopt.stages import AtOnce, Polynomial, Prune
from tfopt.testing import check_stage

GROWTHS = [
    Polynomial(),
    Polynomial(begin=0.3, end=1.0),
    Polynomial(begin=0.5, end=0.51, power=1),
    Polynomial(begin=0.99, end=1.0),
    AtOnce(),
    AtOnce(begin=0.5),
    AtOnce(begin=0.99),
]


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 99, 101, 1000, 12345])
def test_the_last_update_of_the_masks_reaches_the_target_within_the_stage(growth, steps):
    # tfmot's step counter is 1 at the first step; its rule takes all steps at once.
    moves, sparsity = growth.over(steps, 0.8)(tf.range(1, steps + 1))
    updates = np.broadcast_to(sparsity, steps)[moves.numpy()]
    assert updates[-1] == pytest.approx(0.8, abs=1e-6)
    assert np.all(np.diff(updates) >= -1e-6)
    assert len(updates) <= 202


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_tfmot_updates_its_masks_by_that_count_of_steps(growth, steps):
    stage = Prune(sparsity=0.75, growth=growth, exclude=("stem",))
    pruned = stage.prepare(model(), steps, None)
    pruned.compile("sgd")
    (counter,) = stage.callbacks(Path())
    counter.set_model(pruned)
    counter.on_train_begin()
    for _ in range(steps):
        pruned(np.ones((1, 8, 8, 1), np.float32), training=True)
    masks = [w.numpy() for w in pruned.weights if "mask" in w.name]
    assert [float((mask == 0).mean()) for mask in masks] == [pytest.approx(0.75, abs=0.01)]


@pytest.mark.parametrize("growth", [Polynomial(), AtOnce()])
def test_delivers_the_sparsity_in_two_steps(growth):
    model = check_stage(Prune(sparsity=0.75, growth=growth))
    zeros = {name: (v.numpy() == 0).mean() for name, v in kernel_variables(model).items()}
    assert zeros == {
        name: pytest.approx(0.75, abs=0.02) for name in ("conv/kernel", "logits/kernel")
    }


def test_excluded_layers_stay_dense():
    model = check_stage(Prune(sparsity=0.5, exclude=("log*",)))
    zeros = {name: (v.numpy() == 0).mean() for name, v in kernel_variables(model).items()}
    assert zeros == {"conv/kernel": 0.5, "logits/kernel": 0.0}


def model():
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(4, 3, name="stem")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (("stm",), "expected names or patterns of layers, received 'stm'; did you mean 'stem'"),
        (("*",), "expected a model with a layer to prune"),
    ],
)
def test_an_exclusion_that_makes_no_sense_is_refused(exclude, message):
    with pytest.raises(ConfigError, match=message):
        Prune(exclude=exclude).prepare(model(), 10, None)


def facts(zeros):
    kernel = Kernel(
        layer="conv", layer_type="Conv2D", name="kernel", shape=(10, 10), zeros=zeros, distinct=9
    )
    depthwise = Kernel(
        layer="dw",
        layer_type="DepthwiseConv2D",
        name="depthwise_kernel",
        shape=(3, 3),
        zeros=0,
        distinct=9,
    )
    return Facts(kernels=(kernel, depthwise), params=109, macs=0)


def test_check_raises_beyond_a_point():
    stage = Prune(sparsity=0.8)
    stage.check(facts(0), facts(79))
    with pytest.raises(RunError, match="expected sparsity 0.800 in 1 kernels, measured 0.770"):
        stage.check(facts(0), facts(77))
