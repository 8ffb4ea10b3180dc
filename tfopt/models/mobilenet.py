"""MobileNetV1 and MobileNetV2, with fewer halvings for small images."""

from tfopt.compat import keras
from tfopt.models import blocks
from tfopt.spec import bounded, spec

# Howard et al. 2017, table 1: (filters, stride).
_V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
_V1 += [(1024, 2), (1024, 1)]

# Sandler et al. 2018, table 2: (expansion, filters, blocks, stride of the first block).
_V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
_V2 += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


@spec
class MobileNetV1:
    """MobileNet of Howard et al. 2017 (arXiv:1704.04861), ReLU6.

    `width` multiplies all filter counts (the paper's alpha: 1, 0.75, 0.5, 0.25); 0.25 is
    MLPerf Tiny's person detector. Input (height, width, channels), any size: see
    `blocks.fitted_strides`. Raises ConfigError for any other rank.
    """

    width: float = bounded(1.0, above=0)

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        inputs = blocks.image_input(spec)
        stem, *strides = blocks.fitted_strides([2, *[stride for _, stride in _V1]], spec.shape)
        x = blocks.conv(inputs, self._scaled(32), "stem", strides=stem, activation="relu6")
        for index, ((filters, _), stride) in enumerate(zip(_V1, strides, strict=True), start=1):
            x = blocks.separable(
                x, self._scaled(filters), f"block{index}", stride=stride, activation="relu6"
            )
        return blocks.classify(inputs, x, spec, "mobilenet_v1")

    def _scaled(self, filters: int) -> int:
        return max(1, int(filters * self.width))


@spec
class MobileNetV2:
    """MobileNetV2 of Sandler et al. 2018 (arXiv:1801.04381), ReLU6, linear bottlenecks.

    `width` multiplies the filter counts (1.4, 1, 0.75, 0.5, 0.35), rounded to a multiple of
    8; the last 1280 only grow. Input (height, width, channels), any size: see
    `blocks.fitted_strides`. Raises ConfigError for any other rank.
    """

    width: float = bounded(1.0, above=0)

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        inputs = blocks.image_input(spec)
        firsts = [2, *[stride for *_, stride in _V2]]
        stem, *strides = blocks.fitted_strides(firsts, spec.shape)
        x = blocks.conv(inputs, _rounded(32 * self.width), "stem", strides=stem, activation="relu6")
        stages = zip(_V2, strides, strict=True)
        for stage, ((expansion, filters, count, _), stride) in enumerate(stages, start=1):
            for block in range(count):
                x = blocks.inverted_residual(
                    x,
                    _rounded(filters * self.width),
                    f"stage{stage}_block{block + 1}",
                    expansion=expansion,
                    stride=1 if block else stride,
                )
        x = blocks.conv(x, _last(self.width), "last", kernel=1, activation="relu6")
        return blocks.classify(inputs, x, spec, "mobilenet_v2")


def _rounded(filters: float) -> int:
    """Return the nearest multiple of 8 that isn't more than a tenth below `filters`."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * filters else nearest


def _last(width: float) -> int:
    return _rounded(1280 * max(1.0, width))
