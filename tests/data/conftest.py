import numpy as np
import pytest

from tfopt.compat import tf
from tfopt.data import from_arrays


@pytest.fixture
def arrays():
    """Pairs of labelled images, every one of them different, whose pixels say which it is."""

    def make(count, shape=(6, 6, 3), classes=3, seed=0):
        images = np.random.default_rng(seed).integers(1, 256, (count, *shape), np.uint8)
        return images, np.arange(count) % classes

    return make


@pytest.fixture
def load(arrays):
    """`from_arrays` on 60 + 25 images, with whatever the test wants to be different."""

    def call(**changes):
        given = {
            "train": arrays(60),
            "test": arrays(25, seed=1),
            "class_names": ("a", "b", "c"),
            "batch_size": 9,
        }
        return from_arrays(**{**given, **changes})

    return call


@pytest.fixture
def folder(tmp_path, arrays):
    """An image folder of two classes with 8 + 4 PNG files, and the pixels in it."""
    pixels = {}
    for split, count in (("train", 8), ("test", 4)):
        images, labels = arrays(count, classes=2, seed=count)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = tmp_path / "images" / split / "ab"[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
            pixels[path] = image
    return tmp_path / "images", pixels
