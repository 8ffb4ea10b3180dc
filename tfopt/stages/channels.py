"""Which channels of a model can only be removed together.

The model is computed with numbers of channels in place of tensors: a tensor is the channel of
each position on its last axis, and a layer says what it does to those. Channels that meet, as
in an Add, become one. Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.graph import interpreted
from tfopt.stages.channel_rules import is_elementwise, rule_of

# The channel of all positions that must stay.
STAYS = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a layer's weight, and the channel of each position on it.

    `makes` says that the weight computes these channels; otherwise it reads or rescales them.
    """

    layer: Any
    weight: Any
    number: int
    channels: np.ndarray
    makes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """All channels of a model, numbered from 0 to `count` - 1, and where they are.

    Channel `STAYS` is none that can be removed. `fields` holds by the name of a layer which
    field of its config states a width, and the channels that make up this width.
    """

    count: int
    axes: tuple[Axis, ...]
    fields: dict[str, tuple[str, np.ndarray]]


def coupled(model: "keras.Model", keeps: Callable[[str], bool]) -> Channels:
    """Return the channels of the functional `model`.

    The channels of its inputs and outputs stay, those of layers for whose name `keeps` is
    true, and those that a layer or an operator takes of which no rule says what it does.
    """
    trace = _Trace(keeps)
    functional: Any = model
    inputs = [trace.fixed(tensor) for tensor in functional.inputs]
    trace.fix(*tf.nest.flatten(interpreted(model, inputs, trace)))
    return trace.result()


class _Ids(np.ndarray):
    """The channels of a tensor, told from the constants among the arguments of a layer."""


class _Trace:
    """What is known of channels after the layers so far; called once for each of them."""

    def __init__(self, keeps: Callable[[str], bool]) -> None:
        self._keeps = keeps
        self._count = STAYS + 1
        self._same: list[np.ndarray] = []
        self._axes: dict[tuple, Axis] = {}
        self._made: dict[str, _Ids] = {}
        self._fields: dict[str, tuple[str, _Ids]] = {}

    def __call__(self, node: Any, args: Any, kwargs: Any) -> Any:
        arguments = tf.nest.flatten((args, kwargs))
        taken = [value for value in arguments if isinstance(value, _Ids)]
        others = [value for value in arguments if not isinstance(value, _Ids)]
        rule = rule_of(node.layer, len(taken), others)
        given = rule(self, node, *taken) if rule else None
        if given is None:
            self.fix(*taken)
            return tf.nest.map_structure(self.fixed, node.outputs)
        given = given if isinstance(given, _Ids) else np.asarray(given).view(_Ids)
        if self._keeps(node.layer.name):
            self.fix(given)
        return given

    def fixed(self, tensor: Any) -> _Ids:
        """Return the channels of a `tensor` that stays as it is."""
        width = tensor.shape[-1] if tensor.shape.rank else 1
        return np.full(width or 1, STAYS).view(_Ids)

    def fix(self, *tensors: _Ids) -> None:
        """Let all channels of `tensors` stay."""
        for ids in tensors:
            self.join(ids, np.full_like(ids, STAYS))

    def join(self, some: np.ndarray, others: np.ndarray) -> None:
        """Let channels of equal position in `some` and `others` be the same."""
        self._same.append(np.stack([some, others]))

    def make(self, layer: Any, width: int, field: str) -> _Ids:
        """Return new channels, `width` of them, that `field` of the layer's config counts."""
        if layer.name not in self._made:
            made = np.arange(self._count, self._count + width).view(_Ids)
            self._made[layer.name], self._count = made, self._count + width
            self.state(layer, field, made)
            if not is_elementwise(getattr(layer, "activation", keras.activations.linear)):
                self.fix(made)
        return self._made[layer.name]

    def state(self, layer: Any, field: str, ids: np.ndarray) -> None:
        """Note that `field` of the layer's config is the width of `ids`."""
        self._fields[layer.name] = field, ids.view(_Ids)

    def mark(self, layer: Any, weight: Any, number: int, ids: Any, makes: bool = False) -> None:
        """Note the channels on an axis of a weight; None is a weight that the layer lacks."""
        if weight is not None:
            axis = Axis(layer=layer, weight=weight, number=number, channels=ids, makes=makes)
            first = self._axes.setdefault((layer.name, weight.name, number), axis)
            self.join(first.channels, ids)

    def result(self) -> Channels:
        """Return the channels with those that are the same under one number."""
        # Deferred, since it takes half a second, which no config shall wait for.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        one, other = np.concatenate([pairs.reshape(2, -1) for pairs in self._same], axis=1)
        edges = coo_array((np.ones(len(one)), (one, other)), shape=(self._count,) * 2)
        count, number = connected_components(edges, directed=False)
        # The component of STAYS changes its number with the one that is called STAYS.
        names = np.arange(count)
        names[[STAYS, number[STAYS]]] = number[STAYS], STAYS
        # One array for one tensor: those who count channels shall not count the same ones twice.
        renamed: dict[int, np.ndarray] = {}

        def rename(ids: np.ndarray) -> np.ndarray:
            return renamed.setdefault(id(ids), names[number[np.asarray(ids)]])

        axes = tuple(replace(axis, channels=rename(axis.channels)) for axis in self._axes.values())
        fields = {name: (field, rename(ids)) for name, (field, ids) in self._fields.items()}
        return Channels(count=int(count), axes=axes, fields=fields)
