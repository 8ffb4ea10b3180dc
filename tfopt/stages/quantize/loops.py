"""Recurrent layers built of one layer for each operator, step after step, as TFLite has them.

Loads TensorFlow when imported. `rewriter` is the `rewrite.Rewriter` of the model.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.rounding import Zeros
from tfopt.stages.quantize.kinds import FIXED
from tfopt.stages.quantize.linear import dense

_LOG = logging.getLogger(__name__)
_MANY_STEPS = 64


def is_plain(layer: Any, rank: int) -> bool:
    """Return whether the recurrent `layer`, or each of both that it wraps, has a form to build.

    Its input has `rank` dimensions beside that of the batch.
    """
    joined = getattr(layer, "merge_mode", "concat") == "concat"
    alone = all(len(tf.nest.flatten(x)) == 1 for x in (layer.input, layer.output))
    return rank == 2 and joined and alone and all(_is_plain(way) for way in _ways(layer).values())


def _is_plain(way: Any) -> bool:
    functions = [getattr(way, field, None) for field in ("activation", "recurrent_activation")]
    gate = None if isinstance(way, keras.layers.SimpleRNN) else keras.activations.sigmoid
    expected = [keras.activations.tanh, gate]
    special = way.stateful or way.time_major or way.recurrent_dropout
    return functions == expected and getattr(way, "reset_after", True) and not special


def _ways(layer: Any) -> dict[str, Any]:
    """Return by a name for each the loops of which `layer` is made."""
    if not isinstance(layer, keras.layers.Bidirectional):
        return {layer.name: layer}
    ways = {"forward": layer.forward_layer, "backward": layer.backward_layer}
    return {f"{layer.name}_{name}": way for name, way in ways.items()}


def build(rewriter: Any, layer: Any) -> Callable:
    """Return what is called in place of `layer`."""
    loops = [_Loop(rewriter, layer, way, name) for name, way in _ways(layer).items()]
    ends_in = loops[0].ends_in

    def called(x: Any, **_: Any) -> Any:
        if not layer.return_sequences:
            return rewriter.end(layer, _joined([loop(x)[-1] for loop in loops]), **ends_in)
        # Steps that are put together have one range, which is learned from all of them at once.
        whole = rewriter.range(layer.name, **ends_in)
        ends = [loop(x, rounding=lambda step: whole(step, learns=False)) for loop in loops]
        if len(loops) == 2:
            ends[1].reverse()  # it has read backwards
        return whole(_joined([tf.stack(steps, axis=1) for steps in ends]))

    def _joined(ends: list) -> Any:
        if len(ends) == 1:
            return ends[0]
        return keras.layers.Concatenate(name=rewriter.named(layer.name))(ends)

    return called


class _Loop:
    """The steps of a recurrent layer `way`, which is `layer` or a part of it, called `name`."""

    def __init__(self, rewriter: Any, layer: Any, way: Any, name: str) -> None:
        self._rewriter, self._layer, self._way, self._name = rewriter, layer, way, name
        self._step = _STEPS[type(way).__name__]
        weights = _WEIGHTS[type(way).__name__](*(x.numpy() for x in way.cell.weights))
        kernel, recurrent, bias, recurrent_bias = weights
        self._project = dense(rewriter, layer, name, kernel, bias, 1)
        self._ahead: dict[str, Any] = {}
        # TFLite's own range where the output comes straight from an activation.
        self.ends_in: dict[str, Any] = {"fixed": FIXED["tanh"]} if self._step is _simple else {}
        self.repeat = dense(rewriter, layer, f"{name}_recurrent", recurrent, recurrent_bias, 1)

    def __call__(self, x: Any, rounding: Callable | None = None) -> list:
        """Return the output of each step of `x`, (batch, steps, features), in their order.

        They are rounded by `rounding`, or each in its own range but for the last, which isn't.
        """
        if self._way.dropout:
            shape = (None, 1, x.shape[-1])  # the same of all steps
            x = keras.layers.Dropout(self._way.dropout, shape, name=f"{self._name}_dropout")(x)
        inputs = self.ranged(self._project(x), "inputs")
        outputs: list = []
        state = None
        self.single = x.shape[1] == 1
        order = range(x.shape[1])
        if len(order) > _MANY_STEPS:
            _LOG.warning(
                "layer %s: its %d time steps are written out one after another, which makes a "
                "large file and takes minutes; shorten the sequences.",
                self._name,
                len(order),
            )
        for number in reversed(order) if self._way.go_backwards else order:
            if outputs and not rounding:
                outputs[-1] = self.ranged(outputs[-1], "output", **self.ends_in)
            before = outputs[-1] if outputs else None
            output, state = self._step(self, inputs[:, number], before, state)
            outputs.append(rounding(output) if rounding else output)
        return outputs

    def ranged(self, tensor: Any, what: str, *, ahead: bool = False, **options: Any) -> Any:
        """Return `tensor`, rounded in a range of its own, or `ahead` in that of the next step."""
        made = self._ahead.pop(what, None) or self._rewriter.range(
            f"{self._name}_{what}", **options
        )
        if ahead:
            self._ahead[what] = made
        return made(tensor, learns=not ahead)

    def activated(self, tensor: Any, name: str) -> Any:
        """Return the activation `name` of `tensor`, rounded."""
        return self._rewriter.activated(tensor, name, self._layer, f"{self._name}_{name}")


def _simple(loop: _Loop, x: Any, h: Any, _: Any) -> tuple:
    total = x if h is None else loop.ranged(x + loop.ranged(loop.repeat(h), "recurrent"), "sum")
    return loop.activated(total, "tanh"), None


def _lstm(loop: _Loop, x: Any, h: Any, c: Any) -> tuple:
    units = x.shape[-1] // 4
    # The first output and state are 0.
    total = x if h is None else loop.ranged(x + loop.ranged(loop.repeat(h), "recurrent"), "gates")
    gates = loop.activated(total[:, : 3 * units], "sigmoid")
    new = loop.activated(total[:, 3 * units :], "tanh")
    state = loop.ranged(gates[:, :units] * new, "new")
    if c is not None:
        kept = loop.ranged(gates[:, units : 2 * units] * c, "kept")
        state = loop.ranged(kept + state, "state")
    return gates[:, 2 * units :] * loop.activated(state, "tanh"), state


def _gru(loop: _Loop, x: Any, h: Any, _: Any) -> tuple:
    units = x.shape[-1] // 3
    # Of a state of 0 nothing is left but biases, which are constants to the converter.
    first = h is None
    back = loop.repeat(Zeros(units)(x)) if first else loop.ranged(loop.repeat(h), "recurrent")
    total = loop.ranged(x[:, : 2 * units] + back[:, : 2 * units], "gates")
    gates = loop.activated(total, "sigmoid")
    reset = loop.ranged(
        gates[:, units:] * back[:, 2 * units :], "reset", ahead=first and not loop.single
    )
    candidate = loop.ranged(x[:, 2 * units :] + reset, "candidate")
    new = loop.activated(candidate, "tanh")
    # The same as gate * h + (1 - gate) * new, in three operators.
    if first:
        return new - loop.ranged(gates[:, :units] * new, "kept"), None
    change = loop.ranged(h - new, "change")
    return new + loop.ranged(gates[:, :units] * change, "kept"), None


def _lstm_weights(kernel: Any, recurrent: Any, bias: Any = None) -> tuple:
    def sorted_gates(values: Any) -> Any:
        # Keras has them as input, forget, new, output: what has one activation comes together.
        if values is None:
            return None
        i, f, new, o = np.split(values, 4, axis=-1)
        return np.concatenate([i, f, o, new], axis=-1)

    return sorted_gates(kernel), sorted_gates(recurrent), sorted_gates(bias), None


def _gru_weights(kernel: Any, recurrent: Any, biases: Any = None) -> tuple:
    biases = (None, None) if biases is None else biases
    return kernel, recurrent, *biases


# By class: a step, and the weights (kernel, recurrent kernel, and the bias of each).
_STEPS = {"SimpleRNN": _simple, "LSTM": _lstm, "GRU": _gru}
_WEIGHTS: dict[str, Callable] = {
    "SimpleRNN": lambda kernel, recurrent, bias=None: (kernel, recurrent, bias, None),
    "LSTM": _lstm_weights,
    "GRU": _gru_weights,
}
