import numpy as np
import pytest

from tfopt.compat import tf
from tfopt.stages import Block, NofM, Unstructured
from tfopt.stages.patterns import folded, has, losing, most, n_of_m, unfolded

SHAPES = [(1, 8, 6), (9, 3, 5), (2, 7, 4), (4, 1, 3)]


def costs_of(shape):
    return np.random.default_rng(sum(shape)).random(shape).astype(np.float32)


def lost(pattern, costs, zeros):
    return losing(pattern, tf.constant(costs), zeros).numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_unstructured_loses_the_least_and_exactly_as_many_as_asked(shape):
    costs = costs_of(shape)
    for zeros in (0, 1, costs.size // 3, costs.size):
        gone = lost(Unstructured(), costs, zeros)
        assert gone.sum() == zeros
        assert costs[gone].max(initial=0) <= costs[~gone].min(initial=1)
    assert lost(Unstructured(), np.zeros(shape), 2).sum() == 2, "ties are no reason for more"


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_go_as_a_whole_those_of_the_least_mean(shape):
    costs = costs_of(shape)
    gone = lost(Block(height=2, width=3), costs, costs.size // 2)
    tiles = [
        (position, slice(row, row + 2), slice(column, column + 3))
        for position in range(shape[0])
        for row in range(0, shape[1], 2)
        for column in range(0, shape[2], 3)
    ]
    assert {gone[tile].mean() for tile in tiles} <= {0.0, 1.0}
    means = [costs[tile].mean() for tile in tiles]
    stay = [mean for tile, mean in zip(tiles, means, strict=True) if not gone[tile].all()]
    went = [mean for tile, mean in zip(tiles, means, strict=True) if gone[tile].all()]
    assert max(went, default=0) <= min(stay)
    assert abs(gone.sum() - costs.size // 2) <= 3


def groups_of_four(values):
    """Return `values` as (groups, 4), filled up with NaN."""
    filling = -values.shape[1] % 4
    padded = np.pad(values, [(0, 0), (0, filling), (0, 0)], constant_values=np.nan)
    return np.moveaxis(padded.reshape(len(values), -1, 4, values.shape[2]), 2, -1).reshape(-1, 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_two_of_four_inputs_stay_the_largest_ones(shape):
    costs = costs_of(shape)
    gone = lost(NofM(zeros=2, of=4), costs, costs.size)
    kept = groups_of_four(np.where(gone, 0, costs))
    real = ~np.isnan(kept)
    assert np.array_equal((kept > 0).sum(1), np.minimum(real.sum(1), 2))
    best = np.sort(np.nan_to_num(groups_of_four(costs)), 1)[:, -2:]
    np.testing.assert_array_equal(np.sort(np.nan_to_num(kept), 1)[:, -2:], best)
    assert gone.sum() == most(NofM(zeros=2, of=4), shape, "Dense")


def test_below_its_sparsity_the_groups_that_lose_least_have_the_pattern():
    costs = costs_of((3, 8, 4))
    gone = lost(NofM(zeros=2, of=4), costs, 20)
    went = groups_of_four(gone.astype(float)).sum(1)
    assert sorted(set(went)) == [0, 2]
    assert went.sum() == 20
    losses = np.sort(groups_of_four(costs), 1)[:, :2].sum(1)
    assert losses[went == 2].max() < losses[went == 0].min()


@pytest.mark.parametrize("layer_type", ["Conv2D", "Conv2DTranspose"])
def test_the_inputs_of_a_kernel_are_those_that_it_sums_over(layer_type):
    inputs, outputs = 8, 3
    last = (inputs, outputs) if layer_type == "Conv2D" else (outputs, inputs)
    kernel = costs_of((2, 2, *last))
    gone = losing(NofM(zeros=1, of=8), folded(kernel, layer_type), kernel.size)
    gone = unfolded(gone, kernel.shape, layer_type).numpy()
    assert np.all(gone.sum(2 if layer_type == "Conv2D" else 3) == 1)
    round_trip = unfolded(folded(kernel, layer_type), kernel.shape, layer_type)
    np.testing.assert_array_equal(round_trip, kernel)


def test_a_pattern_is_told_from_as_many_zeros_by_chance():
    rng = np.random.default_rng(0)
    costs = tf.constant(rng.random((9, 16, 8)))
    for zeros, of in ((2, 4), (1, 2), (6, 8), (1, 4)):
        pattern = NofM(zeros=zeros, of=of)
        sparse = tf.where(pattern.may_go(costs), tf.zeros_like(costs), costs)
        assert has(pattern, sparse)
        found = n_of_m([sparse])
        assert (found.zeros / found.of, has(found, sparse)) == (zeros / of, True)
        assert n_of_m([tf.constant(costs.numpy() * (rng.random(costs.shape) < 0.5))]) is None
