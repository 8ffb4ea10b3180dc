"""CIFAR-10 by Keras's own loader and cache."""

import pickle
import warnings
from pathlib import Path

import numpy as np

from tfopt.compat import keras
from tfopt.data.front_end import Image
from tfopt.data.pipeline import Pair
from tfopt.data.source import Source
from tfopt.data.splits import Splits
from tfopt.errors import ConfigError
from tfopt.spec import spec

_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_TRAIN_FILES = [f"data_batch_{number}" for number in range(1, 6)]


@spec
class Cifar10(Source):
    """50,000 + 10,000 images of 32 x 32 x 3 pixels, uint8, in 10 classes.

    Taken from `~/.keras/datasets/cifar-10-batches-py`, where Keras unpacks its download
    (170 MB), and downloaded by Keras where that folder isn't there.
    """

    def load(self, batch_size: int) -> Splits:
        """Return the splits of CIFAR-10; raises ConfigError where it can't be had."""
        folder = Path("~/.keras/datasets/cifar-10-batches-py").expanduser()
        with warnings.catch_warnings():
            # The files were pickled by a NumPy whose way to write a dtype is deprecated now.
            warnings.simplefilter("ignore")
            train, test = _unpacked(folder) or _fetched(folder)
        return self.splits(
            train=train,
            test=test,
            class_names=tuple(_NAMES.split()),
            batch_size=batch_size,
            front_end=Image(),
        )


def _unpacked(folder: Path) -> tuple[Pair, Pair] | None:
    # Keras's loader downloads the archive again when only the unpacked files are there.
    if not all((folder / name).is_file() for name in [*_TRAIN_FILES, "test_batch"]):
        return None
    images, labels = zip(*(_read(folder / name) for name in _TRAIN_FILES), strict=True)
    return (np.concatenate(images), np.concatenate(labels)), _read(folder / "test_batch")


def _read(path: Path) -> Pair:
    try:
        with path.open("rb") as file:
            content = pickle.load(file, encoding="bytes")
        images = np.asarray(content[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), np.array(content[b"labels"])
    except Exception as error:  # a damaged pickle may raise anything
        raise ConfigError(
            f"config.data: expected a batch of CIFAR-10 in {path}, received an unreadable file "
            f"({error}); delete its folder and unpack cifar-10-python.tar.gz again."
        ) from error


def _fetched(folder: Path) -> tuple[Pair, Pair]:
    try:
        return keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise ConfigError(
            f"config.data: expected CIFAR-10 in {folder} or a network to fetch it, received "
            f"neither ({error}); put cifar-10-python.tar.gz there as {folder}.tar.gz."
        ) from error
