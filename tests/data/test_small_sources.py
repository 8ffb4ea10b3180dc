import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.data import Augment, Cifar10, Digits, from_arrays
from tfopt.errors import ConfigError


def test_digits_are_split_alike_in_every_class_by_the_seed():
    splits = Digits(validation=0.1, mean=(0.0,), std=(1.0,), augment=Augment(shift=1)).load(64)
    assert splits.spec.shape == (8, 8, 1) and splits.spec.classes == 10
    assert splits.spec.train_size == 1797 - 359 - 144
    images, labels, weights = (
        np.concatenate(parts) for parts in zip(*splits.test.as_numpy_iterator(), strict=True)
    )
    counts = np.bincount(labels[weights > 0])
    assert counts.sum() == 359 and counts.min() >= 34 and counts.max() <= 37
    assert images.max() == 16 and images.min() == 0
    assert Digits().load(64).spec == Digits(augment=Augment()).load(64).spec
    assert Digits().load(64).spec != Digits(seed=1).load(64).spec


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def cache(home):
    """Keras's cache as its loader leaves it, with 20 images a file instead of 10,000."""
    folder = home / ".keras" / "datasets" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        draw = np.random.default_rng(number).integers(0, 256, (20, 3072), np.uint8)
        content = {b"data": draw, b"labels": [n % 10 for n in range(20)]}
        written = pickle.dumps(content, protocol=2)
        # The real files are of Python 2 and the NumPy of 2009, whose dtype has 0 and 1 as flags.
        written = written.replace(b"numpy._core", b"numpy.core")
        written = written.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
        assert b"K\x00K\x01\x87" in written
        (folder / name).write_bytes(written)
    return folder


def test_cifar10_from_a_cache_filled_by_hand(cache):
    splits = Cifar10(mean=(0.0,), std=(1.0,)).load(20)
    assert splits.spec.shape == (32, 32, 3) and splits.spec.train_size == 90
    assert splits.spec.class_names[0] == "airplane" and splits.spec.class_names[9] == "truck"
    images, labels, _ = next(splits.test.as_numpy_iterator())
    stored = np.random.default_rng(5).integers(0, 256, (20, 3072), np.uint8)
    np.testing.assert_array_equal(images[3, :, :, 1], stored[3].reshape(3, 32, 32)[1])
    assert labels.tolist() == [n % 10 for n in range(20)]


def test_a_damaged_cifar10_file_is_named(cache):
    path = cache / "data_batch_2"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ConfigError,
        match=re.escape(
            f"config.data: expected a batch of CIFAR-10 in {path}, received an unreadable file ("
        ),
    ):
        Cifar10().load(20)


def test_cifar10_without_cache_and_network_says_where_to_put_the_file(home, monkeypatch):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    folder = home / ".keras" / "datasets" / "cifar-10-batches-py"
    with pytest.raises(ConfigError) as caught:
        Cifar10().load(20)
    assert str(caught.value) == (
        f"config.data: expected CIFAR-10 in {folder} or a network to fetch it, received neither "
        f"(URL fetch failure); put cifar-10-python.tar.gz there as {folder}.tar.gz."
    )


def test_cifar10_is_fetched_by_keras_where_the_cache_is_empty(home, arrays, monkeypatch):
    train, test = arrays(50, (32, 32, 3), 10), arrays(20, (32, 32, 3), 10, seed=1)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (train, test))
    assert Cifar10().load(10).spec.train_size == 45


def test_a_source_of_ones_own_takes_five_lines(arrays):
    class Mine:
        def load(self, batch_size):
            x, y = arrays(60)
            return from_arrays(
                train=(x[:40], y[:40]),
                test=(x[40:], y[40:]),
                class_names=("a", "b", "c"),
                batch_size=batch_size,
            )

    assert Mine().load(4).steps_per_epoch == 9


def test_importing_the_sources_loads_neither_tensorflow_nor_scikit_learn():
    code = (
        "import sys, tfopt.data as d; d.Digits(augment=d.Augment()); "
        "print([m for m in ('tensorflow', 'tf_keras', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
