"""Which layers of a model stay float, and whose output is rounded by a later layer.

Loads TensorFlow when imported.
"""

from collections.abc import Callable
from typing import Any

from tfopt.compat import tf
from tfopt.graph import consumers, only, operator, option, producers
from tfopt.masks import is_masked
from tfopt.rounding import BY_CONFIG
from tfopt.stages.quantize import composite
from tfopt.stages.quantize.kinds import FIXED, Kind, activation, kind_of, why_float

_FUSING = (Kind.KERNEL, Kind.NORM, Kind.MERGE)
_RELUS = (Kind.RELU, "nn.relu6")
_ADDS = ("__operators__.add", "math.add")
_ARITHMETIC = ("__operators__.add", "math.add", "math.subtract", "math.multiply")

# What these are built of would take no mask; attention does, and others only pass one on.
_LOOPS = ("Bidirectional", "GRU", "LSTM", "SimpleRNN")
_BY_STEP = (*_LOOPS, "Average", "GlobalAveragePooling1D", "Softmax")


class Plan:
    """What TFLite's converter will make of a flat model, where `bits(layer)` is 0 for float."""

    def __init__(self, flat: Any, bits: Callable, activations: int) -> None:
        self._consumers, self._producers = consumers(flat), producers(flat)
        self._outputs = set(flat.output_names)
        self._bits, self._wide = bits, activations == 16
        self._fused = {name for layer in flat.layers for name in self._inside_hard_swish(layer)}

    def reason(self, layer: Any) -> str:
        """Return why `layer` stays float, "" where it doesn't."""
        kind, name = kind_of(layer), operator(layer) or type(layer).__name__
        if not self._bits(layer):
            return BY_CONFIG
        if reason := why_float(kind, name, wide=self._wide):
            return reason
        if kind is Kind.COMPOSITE and not composite.can_build(layer):
            return f"it isn't known how to compute this form of {name} in int8"
        return "a mask of steps reaches it" if name in _BY_STEP and _takes_mask(layer) else ""

    def absorbed(self, layer: Any) -> bool:
        """Return whether no tensor is kept between `layer` and the one layer that takes it."""
        taking = only(self._consumers[layer.name])
        if layer.name in self._outputs or taking is None:
            return False
        if self.reason(taking):
            return bool(self.reason(layer))
        if self.reason(layer):
            return False
        kind, then = kind_of(layer), kind_of(taking)
        linear = kind is not Kind.KERNEL or activation(layer) in ("", "linear")
        if then is Kind.RELU:
            fuses = kind in _FUSING or operator(layer) in _ARITHMETIC
            return fuses and linear and type(layer).__name__ != "Conv2DTranspose"
        if then is Kind.NORM:
            return kind is Kind.KERNEL and linear and only(self._producers[taking.name]) is layer
        if then is Kind.JOINT:
            # All or none: the converter would give the joint the range of any input that has one.
            return all(self._joins(each) for each in self._producers[taking.name])
        return layer.name in self._fused

    def _joins(self, layer: Any) -> bool:
        """Return whether the output of `layer` can be rounded in the joint that takes it."""
        alone = len(self._consumers[layer.name]) == 1 and layer.name not in self._outputs
        own = kind_of(layer) in (*_FUSING, Kind.OWN, Kind.RELU, Kind.ACTIVATION)
        return alone and own and not self.reason(layer) and activation(layer) not in FIXED

    def _inside_hard_swish(self, layer: Any) -> list[str]:
        """Return the three layers inside of x * (relu6(x + 3) / 6), one operator in TFLite."""
        if type(layer).__name__ != "Multiply":
            return []
        for inner in self._producers[layer.name]:
            found = []
            while len(self._producers[inner.name]) == 1 == len(self._consumers[inner.name]):
                found.append(inner)
                (inner,) = self._producers[inner.name]
                if len(found) == 3:
                    break
            kinds = [operator(each) or kind_of(each) for each in found]
            hard = kinds in (["math.multiply", relu, add] for relu in _RELUS for add in _ADDS)
            if hard and inner in self._producers[layer.name]:
                return [each.name for each in found]
        return []


def _takes_mask(layer: Any) -> bool:
    if option(layer, "mask") is not None:
        return True
    return any(is_masked(tensor) for tensor in tf.nest.flatten(layer.get_input_at(0)))
