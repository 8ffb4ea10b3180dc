import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.facts import kernel_variables, measure
from tfopt.stages import ERK, Block, Global, Sensitivity, Uniform, Unstructured
from tfopt.stages.allocation import allocate


def model(dead=0):
    """A model whose `wide` has `dead` outputs without weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4), name="input")
    x = keras.layers.Conv2D(16, 3, name="conv")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(32, activation="relu", name="wide")(x)
    made = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))
    wide = made.get_layer("wide").kernel
    wide.assign(wide * (np.arange(32) >= dead))
    return made


def samples():
    examples = np.random.default_rng(0).normal(size=(3, 8, 6, 6, 4)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((examples, np.zeros((3, 8))))


def shares(allocation, made, zeros, pattern=None):
    kernels = measure(made).kernels
    counts = allocate(allocation, pattern or Unstructured(), made, samples(), kernels, zeros)
    assert sum(counts.values()) == zeros
    return {kernel.layer: count / kernel.size for kernel, count in counts.items()}


@pytest.mark.parametrize("allocation", [Uniform(), Global(), ERK(), Sensitivity(batches=2)])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("pattern", [Unstructured(), Block(height=1, width=4)])
def test_gives_what_was_asked_and_cuts_no_layer_through(allocation, sparsity, pattern):
    made = model()
    size = sum(kernel.size for kernel in measure(made).kernels)
    found = shares(allocation, made, round(sparsity * size), pattern)
    assert 1 - max(found.values()) >= 0.9 * (1 - sparsity) / 10


def test_uniform_takes_the_same_share_of_each_layer():
    assert shares(Uniform(), model(), 6200) == pytest.approx(dict.fromkeys(
        ("conv", "wide", "logits"), 6200 / (576 + 8192 + 320)), abs=0.003)  # fmt: skip


def test_erk_keeps_by_the_formula_of_the_paper():
    found = shares(ERK(), model(), 8000)
    kept = np.array([1 - found[name] for name in ("conv", "wide", "logits")])
    formula = np.array([(3 + 3 + 4 + 16) / 576, (256 + 32) / 8192, (32 + 10) / 320])
    np.testing.assert_allclose(kept / kept[1], formula / formula[1], rtol=0.05)
    assert shares(ERK(), model(), 4000)["logits"] == 0


def test_global_is_one_threshold_of_the_papers_score():
    made, scores = model(), {}
    for name, value in kernel_variables(made).items():
        squares = np.sort(np.square(value.numpy().ravel().astype(np.float64)))
        rest = [squares[index:].sum() for index in range(len(squares))]
        scores[name.split("/")[0]] = squares / rest
    threshold = np.sort(np.concatenate(list(scores.values())))[4544]
    expected = {name: (score < threshold).mean() for name, score in scores.items()}
    assert shares(Global(), made, 4544) == pytest.approx(expected, abs=0.003)


def test_a_layer_that_the_loss_does_not_feel_loses_first():
    made = model()
    logits = made.get_layer("logits").kernel
    # Only the first 4 of its 32 outputs reach the logits.
    logits.assign(logits * (np.arange(32)[:, None] < 4))
    found = shares(Sensitivity(batches=3), made, 7000)
    assert found["wide"] > 0.8 > found["conv"]
    uniform = shares(Uniform(), made, 7000)
    assert uniform["wide"] == pytest.approx(uniform["conv"], abs=0.01)


@pytest.mark.parametrize("allocation", [Uniform(), Global(), ERK(), Sensitivity(batches=2)])
def test_zeros_that_are_there_are_counted_where_they_are(allocation):
    assert shares(allocation, model(dead=24), 6300)["wide"] >= 0.75
