"""Image files to uint8, many at a time."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfopt.compat import tf
from tfopt.data.rows import per_chunk
from tfopt.errors import ConfigError


def first_shape(path: Path) -> tuple[int, int, int]:
    """Return height, width and 1 (grey) or 3 (RGB) of the image at `path`."""
    height, width, channels = _read(path, 0).numpy().shape
    return height, width, 1 if channels <= 2 else 3


def decode(
    paths: list[Path], shape: tuple[int, int, int], resize: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, images from there on) of uint8 (n, height, width, channels), in order.

    With `resize` images are made to be of `shape`, else they must be. Raises ConfigError
    naming the first file that can't be read or is of another shape.
    """

    def load(path: "tf.Tensor") -> "tf.Tensor":
        image = _decoded(path, shape[2])
        return tf.ensure_shape(_resized(image, shape) if resize else image, shape)

    size = per_chunk(shape, most=1000)
    options = tf.data.Options()
    options.autotune.enabled = False
    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    images = files.map(load, num_parallel_calls=os.cpu_count() or 1, deterministic=True)
    batches = iter(images.batch(size).prefetch(1).with_options(options))
    for start in range(0, len(paths), size):
        try:
            batch = next(batches).numpy()
        except tf.errors.OpError as error:
            raise _culprit(paths[start : start + size], shape, resize) from error
        yield start, batch


def _decoded(path: "tf.Tensor | str", channels: int) -> "tf.Tensor":
    # Animations would add an axis; no image format of ours has any.
    return tf.io.decode_image(tf.io.read_file(path), channels, expand_animations=False)


def _resized(image: "tf.Tensor", shape: tuple[int, int, int]) -> "tf.Tensor":
    scaled = tf.image.resize(image, shape[:2], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8)


def _read(path: Path, channels: int) -> "tf.Tensor":
    try:
        return _decoded(str(path), channels)
    except tf.errors.OpError as error:
        raise ConfigError(
            f"config.data.path: expected a readable JPEG or PNG image, received {path}, which is "
            f"damaged or of another format ({path.stat().st_size} bytes); replace or remove it."
        ) from error


def _culprit(paths: list[Path], shape: tuple[int, int, int], resize: bool) -> ConfigError:
    for path in paths:
        try:
            found = _read(path, shape[2]).numpy().shape
        except ConfigError as error:
            return error
        if found != shape and not resize:
            return ConfigError(
                f"config.data: expected images of shape {shape} as the first one, received "
                f"{found} in {path}; set config.data.image_size to resize all."
            )
    return ConfigError(
        f"config.data.path: expected readable images, received a failure between {paths[0]} and "
        f"{paths[-1]} that didn't occur again; check the disk."
    )
