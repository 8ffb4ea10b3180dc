import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.stages import Block, NofM, Unstructured
from tfopt.stages.patterns import losing
from tfopt.stages.sparse_gpt import hessian, reconstructed

CONVOLUTIONS = [
    {"padding": "same", "strides": 2},
    {"padding": "valid", "dilation_rate": (1, 2)},
    {"padding": "same", "groups": 2, "kernel_size": (1, 3)},
    {"kernel_size": 1, "strides": (2, 1)},
]


def error(layer, inputs, weights):
    """Return the square of what `weights` (positions, inputs, outputs) change of the output."""
    before, kernel = layer(inputs), layer.kernel.numpy()
    layer.kernel.assign(weights.reshape(kernel.shape))
    after = layer(inputs)
    layer.kernel.assign(kernel)
    return float(tf.reduce_sum(tf.square(after - before)))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(6),
        *(keras.layers.Conv2D(6, **{"kernel_size": 3, **c}) for c in CONVOLUTIONS),
        keras.layers.Conv1D(6, 3, padding="same", strides=2),
        keras.layers.Conv1D(6, 3, padding="causal", dilation_rate=2, groups=2),
    ],
)
def test_the_hessian_is_that_of_the_output_error_of_the_layer(layer):
    rng = np.random.default_rng(0)
    shape = (9, 4) if isinstance(layer, keras.layers.Conv1D) else (9, 8, 4)
    batches = rng.normal(size=(2, 3, *shape)).astype(np.float32)
    layer(batches[0])
    found = hessian(layer, map(tf.constant, batches))
    kernel = layer.kernel.numpy()
    change = rng.normal(size=kernel.shape).astype(np.float32)
    groups = np.split(change.reshape(-1, 6), len(found), axis=-1)
    expected = sum(
        np.sum(part * (second @ part)) for part, second in zip(groups, found, strict=True)
    )
    measured = sum(error(layer, batch, kernel + change) for batch in batches)
    assert measured == pytest.approx(expected, rel=1e-4)


def problem(outputs=16):
    """Return weights (2, 32, outputs) and the Hessian of correlated inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(500, 64)) @ (rng.normal(size=(64, 64)) * rng.random(64) ** 2)
    return rng.normal(size=(2, 32, outputs)).astype(np.float32), inputs.T @ inputs


def output_error(change, second):
    change = change.reshape(len(second), -1)
    return np.sum(change * (second @ change))


@pytest.mark.parametrize("pattern", [Unstructured(), NofM(), Block(height=4)])
def test_the_weights_that_stay_make_up_for_most_of_the_error(pattern):
    weights, second = problem()
    zeros = weights.size // 2
    found = reconstructed(weights, second, pattern, zeros, 0.01)
    by_magnitude = weights * ~losing(pattern, tf.constant(weights**2), zeros).numpy()
    assert (found == 0).sum() == (by_magnitude == 0).sum() == zeros
    assert output_error(found - weights, second) < 0.5 * output_error(
        by_magnitude - weights, second
    )
    if pattern.fixed:
        assert set((found != 0).reshape(2, 8, 4, 16).sum(2).ravel()) == {2}


def test_what_another_input_repeats_costs_nothing():
    weights, second = problem()
    # Input 2i + 1 is input 2i: half of the weights is enough.
    twice = np.repeat(np.repeat(second[::2, ::2], 2, 0), 2, 1)
    found = reconstructed(weights, twice, NofM(zeros=1, of=2), weights.size // 2, 1e-6)
    assert (found == 0).mean() == 0.5
    assert output_error(found - weights, twice) < 1e-6 * output_error(weights, twice)


def test_zeros_that_are_there_stay_and_are_counted():
    weights, second = problem()
    there = np.random.default_rng(1).random(weights.shape) < 0.4
    found = reconstructed(
        np.where(there, 0, weights), second, Unstructured(), weights.size // 2, 0.01
    )
    assert np.all(found[there] == 0)
    assert abs((found == 0).sum() - weights.size // 2) < 0.02 * weights.size
