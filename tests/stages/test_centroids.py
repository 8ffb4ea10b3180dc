import numpy as np
import pytest
from sklearn.cluster import KMeans

from tfopt.stages import Density, KMeansPlusPlus, Linear, Random
from tfopt.stages.centroids import shared

INITIALIZATIONS = [KMeansPlusPlus(), Linear(), Density(), Random()]


@pytest.fixture
def kernel():
    """Channels of different size and place, a third of the weights zero."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 5)) * (0.01, 0.1, 1, 10, 100) + (0, 1, -3, 0, 7)
    return (values * (rng.random(values.shape) > 1 / 3)).astype(np.float32)


def loss(values, found):
    return ((values.astype(float) - found) ** 2).sum(0)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize("sparse", [False, True])
def test_every_weight_has_the_nearest_of_means_and_zeros_stay(initialization, sparse, kernel):
    found = shared(kernel, 6, initialization, sparse=sparse)
    assert found.dtype == np.float32
    if sparse:
        assert np.array_equal(found == 0, kernel == 0)
    for before, after in zip(kernel.T, found.T, strict=True):
        moved = before[before != 0] if sparse else before
        after = after[before != 0] if sparse else after
        values = np.unique(after)
        assert len(values) <= 6 - sparse
        nearest = np.abs(moved[:, None] - values).min(1)
        assert np.allclose(np.abs(moved - after), nearest, rtol=1e-5, atol=1e-6)
        means = [moved[after == value].mean(dtype=float) for value in values]
        assert np.allclose(means, values, rtol=1e-5)


def test_is_about_as_good_as_the_best_of_ten_starts_of_scikit_learn():
    values = np.random.default_rng(1).normal(size=(2000, 1)).astype(np.float32)
    best = KMeans(8, n_init=10, random_state=0).fit(values).inertia_
    for initialization in (KMeansPlusPlus(), Density(), Linear()):
        assert loss(values, shared(values, 8, initialization, sparse=False))[0] < 1.1 * best


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_fewer_values_than_clusters_stay_as_they_are(initialization):
    values = np.array([[0, 0, 0, 0, 0, 0, 3, -1], [0, 2, 2, 2, 0, 0, 0, 2]], np.float32).T
    assert np.array_equal(shared(values, 4, initialization, sparse=True), values)
    assert not shared(np.zeros((8, 2)), 4, initialization, sparse=True).any()
