"""DS-CNN for keyword spotting."""

from collections.abc import Iterator

from tfopt.compat import keras
from tfopt.models import blocks
from tfopt.spec import bounded, spec


@spec
class DSCNN:
    """The depthwise-separable CNN of Zhang et al. 2017, "Hello Edge" (arXiv:1711.07128).

    A 10x4 convolution, then `depth` separable ones, all with `filters` filters; the
    defaults are the paper's S. Input (time steps, coefficients, channels), in the paper 49
    frames of 10 MFCCs and one channel; raises ConfigError for any other rank.
    """

    filters: int = bounded(64, least=1)
    depth: int = bounded(4, least=1)
    stem_strides: tuple[int, int] = (2, 2)
    first_stride: int = bounded(1, least=1)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no such network has."""
        if min(self.stem_strides) < 1:
            yield "stem_strides", "two numbers of at least 1"

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        inputs = blocks.image_input(spec)
        x = blocks.conv(inputs, self.filters, "stem", kernel=(10, 4), strides=self.stem_strides)
        for block in range(self.depth):
            stride = 1 if block else self.first_stride
            x = blocks.separable(x, self.filters, f"block{block + 1}", stride=stride)
        return blocks.classify(inputs, x, spec, "ds_cnn")
