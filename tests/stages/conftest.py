import numpy as np
import pytest

from tfopt.data import from_arrays


@pytest.fixture(scope="session")
def splits():
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(64, 5)).astype(np.float32), np.arange(64) % 3
    return from_arrays(
        train=pair, test=pair, validation=pair, class_names=("a", "b", "c"), batch_size=16
    )
