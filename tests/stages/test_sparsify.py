import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.config import Experiment
from tfopt.data import Digits
from tfopt.errors import ConfigError, RunError
from tfopt.facts import measure
from tfopt.stages import Block, First, Last, NofM, Prune


def zeros_of(stage, made):
    return {kernel.layer: count for kernel, count in stage.zeros(made, None).items()}


def model():
    """Kernels of 36, 36 (depthwise), 64 and 2,048 weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(16, 1, strides=2, name="point")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(8, name="logits")(x))


def sized(names):
    return sum(kernel.size for kernel in measure(model()).kernels if kernel.layer in names)


TOTAL = sized({"stem", "depthwise", "point", "logits"})


@pytest.mark.parametrize(
    ("exclude", "dense"),
    [
        ((), set()),
        (("st*",), {"stem"}),
        ((First(), Last()), {"stem", "logits"}),
        ((First(), "point"), {"stem", "point"}),
    ],
)
def test_the_others_make_up_for_what_stays_dense(exclude, dense):
    stage = Prune(sparsity=0.02 if "logits" in dense else 0.7, exclude=exclude)
    zeros = zeros_of(stage, model())
    assert zeros.keys() == {"stem", "point", "logits"} - dense
    assert sum(zeros.values()) == round(stage.sparsity * TOTAL)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Prune(exclude=("stm",)), "layers with a kernel, received 'stm'; did you mean 'stem'"),
        (Prune(exclude=("*",)), "expected a model with a layer to prune"),
        (
            Prune(pattern=NofM(), exclude=("point", "logits")),
            r"pattern: expected one that fits a layer, received NofM\(zeros=2, of=4\), which gives",
        ),
        (
            Prune(exclude=(Last(),)),
            r"received 0.8; 0.045 is the nearest that they can \(2,084 of 2,184 weights stay dense",
        ),
        (
            Prune(sparsity=0.8, pattern=NofM()),
            r"received 0.8; 0.484 is what they give \(36 of 2,184 .*: leave sparsity out,",
        ),
    ],
)
def test_what_cannot_be_delivered_is_refused_with_the_numbers(stage, message):
    with pytest.raises(ConfigError, match=message):
        stage.zeros(model(), None)


def test_layers_inside_others_are_pruned_too():
    inputs = keras.Input((4, 8), name="input")
    x = keras.layers.TimeDistributed(keras.layers.Dense(8, name="inner"), name="each")(inputs)
    x = keras.layers.Bidirectional(keras.layers.GRU(4), name="both")(x)
    made = keras.Model(inputs, keras.layers.Dense(8, name="logits")(x))
    stage = Prune(sparsity=0.5)
    found = measure(stage.rehearsed(stage.prepare(made, 10, None)))
    assert [round(kernel.zeros / kernel.size, 1) for kernel in found.kernels] == [0.5] * 6
    assert [kernel.layer for kernel in found.kernels] == ["each", *["both"] * 4, "logits"]


def sparse(share):
    made = model()
    logits = made.get_layer("logits").kernel
    rng = np.random.default_rng(0)
    logits.assign(logits * (rng.random(logits.shape) >= share))
    return made


def test_a_layer_that_an_initializer_made_of_zeros_is_pruned_like_any():
    made = model()
    made.get_layer("point").kernel.assign(np.zeros((1, 1, 4, 16)))
    assert zeros_of(Prune(sparsity=0.5), made)["point"] == pytest.approx(32, abs=2)


def test_zeros_that_are_there_count_and_too_many_are_refused():
    assert zeros_of(Prune(sparsity=0.7), sparse(0.6))["logits"] >= 0.69 * sized({"logits"})
    there = np.mean(sparse(0.6).get_layer("logits").kernel.numpy() == 0)
    excluded = Prune(sparsity=there * sized({"logits"}) / TOTAL + 0.02, exclude=(Last(),))
    assert sum(excluded.zeros(sparse(0.6), None).values()) == pytest.approx(0.02 * TOTAL, abs=1)
    for stage in (Prune(sparsity=0.3), Prune(sparsity=0.6, pattern=Block())):
        with pytest.raises(ConfigError, match="were zero before"):
            stage.zeros(sparse(0.6), None)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Prune(sparsity=0), "sparsity: expected a number above 0 and below 1, received 0"),
        (Prune(exclude=(3,)), r"exclude: expected names or patterns of layers, First\(\) or Last"),
        (Prune(pattern=NofM(zeros=4, of=4)), r"pattern.zeros: expected fewer than of \(4\)"),
        (Prune(pattern="2:4"), r"NofM\(\) or an object with may_go\(\), received '2:4'"),
    ],
)
def test_nonsense_is_refused_when_the_config_is_read(stage, message):
    with pytest.raises(ConfigError, match=message):
        Experiment(name="x", data=Digits(), model=model, stages=[stage]).validate()


def test_check_raises_beyond_a_point(caplog):
    dense, facts = measure(model()), measure(sparse(0.6))
    reached = facts.sparsity
    Prune(sparsity=reached + 0.009).check(dense, facts)
    asked = f"expected sparsity {reached + 0.03:.3f} over all kernels, measured {reached:.3f}"
    with pytest.raises(RunError, match=asked):
        Prune(sparsity=reached + 0.03).check(dense, facts)
    caplog.set_level("INFO")
    with pytest.raises(RunError, match="expected sparsity 0.484 over all kernels, measured 0.000"):
        Prune(pattern=NofM()).check(dense, dense)
    assert "stage prune: dense, as the pattern doesn't fit: stem/kernel." in caplog.messages


def test_blocks_too_large_for_the_sparsity_are_refused_with_what_they_give():
    stage = Prune(sparsity=0.9, pattern=Block(height=64, width=64))
    with pytest.raises(ConfigError, match=r"received 0\.9; 0\.\d+ is the nearest that they can"):
        stage.prepare(model(), 10, None)
