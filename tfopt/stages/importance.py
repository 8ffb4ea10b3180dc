"""What a channel is worth to a model, as specs."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.facts import kernel_variables, weight_name
from tfopt.spec import bounded, spec
from tfopt.stages.channels import Axis, Channels
from tfopt.stages.scores import fisher


@spec
class L1:
    """The sum of the magnitudes of the weights that make the channel.

    In a group of kernels, the mean over them of that sum relative to those of the kernel's
    other channels. Source: Li et al. 2016, "Pruning Filters for Efficient ConvNets".
    """

    def rate(self, model: "keras.Model", channels: Channels, samples: Any) -> np.ndarray:
        """Return the worth of each channel, (channels,)."""
        del model, samples
        axes = [axis for axis in channels.axes if axis.makes]
        return _mean(
            axes, [_relative(_along(axis, axis.weight.numpy())) for axis in axes], channels
        )


@spec
class BatchNormScale:
    """The magnitude of the channel's scale in BatchNormalization.

    Channels without one are left. Source: Liu et al. 2017, "Learning Efficient Convolutional
    Networks through Network Slimming".
    """

    def rate(self, model: "keras.Model", channels: Channels, samples: Any) -> np.ndarray:
        """Return the worth of each channel, (channels,), NaN for one without a scale.

        Raises ConfigError for a model in which none has one.
        """
        del samples
        axes = [
            axis
            for axis in channels.axes
            if isinstance(axis.layer, keras.layers.BatchNormalization)
            and weight_name(axis.weight) == "gamma"
        ]
        if not axes:
            raise ConfigError(
                f"BatchNormScale(): expected a model with BatchNormalization that has a scale, "
                f"received {model.name!r}, which has none; rate by L1() or Taylor()."
            )
        return _mean(axes, [np.abs(axis.weight.numpy()) for axis in axes], channels)


@spec
class Taylor:
    """What the loss grows by without the channel, to second order.

    The sum of `fisher * weight²` over all kernels' weights that make or read the channel,
    measured on so many `batches`. Sources: LeCun et al. 1989, "Optimal Brain Damage"; Molchanov
    et al. 2019, "Importance Estimation for Neural Network Pruning"; see `scores.fisher`.
    """

    batches: int = bounded(8, least=1)

    def rate(self, model: "keras.Model", channels: Channels, samples: Any) -> np.ndarray:
        """Return the worth of each channel, (channels,)."""
        information = fisher(model, samples, batches=self.batches)
        names = {id(weight): name for name, weight in kernel_variables(model).items()}
        axes = [axis for axis in channels.axes if id(axis.weight) in names]
        losses = [
            _along(axis, information[names[id(axis.weight)]] * np.square(axis.weight.numpy()))
            for axis in axes
        ]
        return _sum(axes, losses, channels)


def _along(axis: Axis, values: np.ndarray) -> np.ndarray:
    """Return the sums of the magnitudes of `values` for each position on `axis`."""
    return np.abs(np.moveaxis(values, axis.number, 0)).reshape(len(axis.channels), -1).sum(1)


def _relative(values: np.ndarray) -> np.ndarray:
    return values / (values.mean() or 1)


def _sum(axes: list[Axis], values: Iterable, channels: Channels) -> np.ndarray:
    total = np.zeros(channels.count)
    for axis, value in zip(axes, values, strict=True):
        total += np.bincount(axis.channels, value, minlength=channels.count)
    return total


def _mean(axes: list[Axis], values: Iterable, channels: Channels) -> np.ndarray:
    counts = _sum(axes, [np.ones(len(axis.channels)) for axis in axes], channels)
    found = np.full(channels.count, np.nan)
    return np.divide(_sum(axes, values, channels), counts, out=found, where=counts > 0)
