"""Random changes to training images, drawn per image and without state."""

from collections.abc import Iterator
from typing import Any

from tfopt.compat import tf
from tfopt.spec import bounded, spec


@spec
class Augment:
    """Shift every image by up to `shift` pixels each way and mirror half of them.

    The defaults are those of the ResNet paper for CIFAR (He et al. 2015, section 4.2). The
    pixels that a shift uncovers are 0, black, as in torchvision: reflecting would draw strokes
    that a digit doesn't have. Works on a batch (n, height, width, channels) of any type.
    """

    flip: bool = True
    shift: int = bounded(4, least=0)

    def rules_for(self, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) for what doesn't fit examples of `shape`."""
        if len(shape) != 3:
            yield "", f"None, for examples of shape {shape} are not images"
        elif self.shift >= min(shape[:2]):
            yield ".shift", f"less than the {min(shape[:2])} pixels of an image's shorter side"

    def __call__(self, images: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
        """Return the batch `images` changed by draws that depend on `seed` (2,) alone."""
        shape: Any = images.shape  # static, as everything in a batch is
        batch, height, width, channels = shape
        draws = tf.random.stateless_uniform([3, batch], seed)
        moves = tf.cast(draws[:2] * (2 * self.shift + 1), tf.int32)[:, :, None]
        rows, columns = tf.range(height)[None], tf.range(width)[None]
        if self.flip:
            columns = tf.where(draws[2, :, None] < 0.5, width - 1 - columns, columns)
        margin = [self.shift, self.shift]
        padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
        tall, wide = height + 2 * self.shift, width + 2 * self.shift
        lines = tf.range(batch)[:, None] * tall + rows + moves[0]
        pixels = lines[:, :, None] * wide + (columns + moves[1])[:, None, :]
        return tf.gather(tf.reshape(padded, [-1, channels]), pixels)
