"""A plain small CNN and a multilayer perceptron: minutes on a laptop."""

from collections.abc import Iterator

from tfopt.compat import keras
from tfopt.models import blocks
from tfopt.spec import bounded, spec


@spec
class SmallCNN:
    """Convolutions with pooling between, then one hidden layer, as LeNet-5 is built.

    Each of `filters` is a 3x3 convolution and a 2x2 max pooling that halves the image;
    `units` are those of the hidden layer. Input (height, width, channels); raises
    ConfigError for any other rank.
    """

    filters: tuple[int, ...] = (32, 64)
    units: int = bounded(128, least=1)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no such network has."""
        yield from _sizes("filters", self.filters)

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        x = inputs = blocks.image_input(spec)
        for index, filters in enumerate(self.filters, start=1):
            x = blocks.conv(x, filters, f"conv{index}")
            x = keras.layers.MaxPooling2D(padding="same", name=f"pool{index}")(x)
        x = keras.layers.Flatten(name="flatten")(x)
        return blocks.classify(inputs, blocks.dense(x, self.units, "dense1"), spec, "small_cnn")


@spec
class MLP:
    """Dense layers with ReLU; the defaults are LeNet-300-100 (LeCun et al. 1998).

    `units` are those of the hidden layers. Input of any shape, which is flattened.
    """

    units: tuple[int, ...] = (300, 100)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no such network has."""
        yield from _sizes("units", self.units)

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model with random weights."""
        inputs = keras.Input(spec.shape, name="input")
        x = keras.layers.Flatten(name="flatten")(inputs)
        for index, units in enumerate(self.units, start=1):
            x = blocks.dense(x, units, f"dense{index}")
        return blocks.classify(inputs, x, spec, "mlp")


def _sizes(field: str, sizes: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if not sizes or min(sizes) < 1:
        yield field, "one or more numbers of at least 1"
