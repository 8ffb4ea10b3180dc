"""How often the elements of a kernel multiply: multiply-accumulates are that times its size."""

import math
from typing import Any

from tfopt.compat import keras, tf


def positions(model: Any, layer: Any, weight: Any) -> int:
    """Return how often each element of the kernel `weight` multiplies in one example.

    That is over all calls of `layer` in `model` and all time steps of a recurrent one; a size
    that is left open counts as 1.
    """
    # Not all calls of the layer: a teacher may have called it again, for other outputs.
    nodes = [
        node for same in model._nodes_by_depth.values() for node in same if node.layer is layer
    ]
    if isinstance(layer, keras.Model):
        inside = (each for each in layer.layers if any(w is weight for w in each.weights))
        return len(nodes) * sum(positions(layer, each, weight) for each in inside)
    return sum(
        # Not node.input_shapes, which has the first argument's only.
        _rows(node.keras_inputs[0])
        * _positions(layer, weight, [_shape(x) for x in node.keras_inputs], _shape(node.outputs))
        for node in nodes
    )


def _rows(tensor: Any) -> int:
    """Return how many rows one example has in `tensor`: places that a reshape put there."""
    layer, index, _ = tensor._keras_history
    if getattr(layer, "symbol", "") != "reshape":
        return 1
    source = layer.inbound_nodes[index].keras_inputs[0]
    return max(math.prod(_shape(source)[1:]) // math.prod(_shape(tensor)[1:]), 1)


def _positions(layer: Any, weight: Any, given: list[tuple], made: tuple) -> int:
    """Return it for one call that takes tensors of shapes `given` and returns one of `made`."""
    if isinstance(layer, keras.layers.TimeDistributed):
        step = [(shape[0], *shape[2:]) for shape in given]
        return given[0][1] * _positions(layer.layer, weight, step, (made[0], *made[2:]))
    if isinstance(layer, keras.layers.Wrapper):
        return _positions(layer.layer, weight, given, made)
    if isinstance(layer, keras.layers.RNN):
        return given[0][1] * _places(made[1:] if layer.return_sequences else made)
    kind = type(layer).__name__
    if kind == "Embedding":
        return 0
    if kind == "EinsumDense":
        return math.prod(made[1:]) // _units(layer)
    if kind == "MultiHeadAttention":
        # Of the value, which comes second, its projections are made.
        return _places(given[weight.name.split("/")[-2] in ("key", "value")])
    return _places(given[0] if kind.endswith("Transpose") else made)


def _units(dense: Any) -> int:
    """Return how many values of one place the EinsumDense `dense` makes with its kernel."""
    kernel, _, outputs = dense.equation.split(",")[1].partition("->")
    sizes = zip(kernel.strip(), dense.kernel.shape, strict=True)
    return math.prod(size for letter, size in sizes if letter in outputs)


def _places(shape: tuple) -> int:
    """Return the number of places in a tensor of `shape` (batch, ..., channels)."""
    return math.prod(shape[1:-1])


def _shape(tensors: Any) -> tuple:
    """Return the shape of the first of `tensors`, with 1 for what is left open."""
    return tuple(size or 1 for size in tf.nest.flatten(tensors)[0].shape)
