"""ResNet for small images."""

from collections.abc import Iterator

from tfopt.compat import keras
from tfopt.models import blocks
from tfopt.spec import bounded, spec


@spec
class ResNet:
    """The CIFAR-10 ResNet of He et al. 2015 (arXiv:1512.03385), section 4.2.

    `depth` = 6n + 2: three stages of n blocks of two 3x3 convolutions, with `width`,
    2 `width` and 4 `width` filters; the second and third stage halve the image. The paper
    has depths 20 (0.27 million parameters) to 110; depth 8 is MLPerf Tiny's image classifier.
    Input (height, width, channels); raises ConfigError for any other.
    """

    depth: int = bounded(20, least=8)
    width: int = bounded(16, least=1)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no such network has."""
        if self.depth % 6 != 2:
            below = self.depth - (self.depth - 2) % 6
            yield "depth", f"6n + 2, such as {below} or {below + 6}"

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        inputs = blocks.image_input(spec)
        x = blocks.conv(inputs, self.width, "stem")
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                x = blocks.residual(
                    x,
                    self.width * 2**stage,
                    f"stage{stage + 1}_block{block + 1}",
                    stride=2 if stage and not block else 1,
                )
        return blocks.classify(inputs, x, spec, f"resnet{self.depth}")
