"""A functional Keras model as the graph that it is: rebuild it with other layers.

Keras's own `clone_model` can exchange a layer for a layer only; here it may become any
function of the same arguments, operators such as `x + y` or `x[:, 0]` are kept, and models
inside the model are flattened.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tfopt.compat import keras, tf


def copied(layer: "keras.layers.Layer") -> "keras.layers.Layer":
    """Return an unbuilt layer of the same configuration and name."""
    return type(layer).from_config(layer.get_config())


def rebuilt(model: "keras.Model", replace: Callable = copied) -> "keras.Model":
    """Return a flat copy of the functional `model`, with other layers where `replace` says so.

    `replace(layer)` is asked once for each layer, shared ones as well, and returns what is
    called in its place with the same arguments: a layer, or a function that calls several or
    none. A layer that comes back with weights of the same shapes gets those of the original.
    """
    functional: Any = model
    inputs = [
        _input_like(tensor, name)
        for tensor, name in zip(functional.inputs, functional.input_names, strict=True)
    ]
    copies: dict[int, tuple[Any, Any]] = {}

    def stand_in(layer: Any) -> Any:
        if id(layer) not in copies:
            copies[id(layer)] = layer, replace(layer)
        return copies[id(layer)][1]

    outputs = interpreted(
        model, inputs, lambda node, args, kwargs: stand_in(node.layer)(*args, **kwargs)
    )
    made = keras.Model(
        tf.nest.pack_sequence_as(functional._nested_inputs, inputs), outputs, name=model.name
    )
    for original, copy in copies.values():
        if isinstance(copy, keras.layers.Layer) and _shapes(copy) == _shapes(original):
            copy.set_weights(original.get_weights())
    return made


def told_apart(model: "keras.Model") -> "keras.Model":
    """Return `model`, or where two of its layers have one name, a flat copy that numbers them."""
    layers = {id(layer): layer for layer, _ in calls(model)}.values()
    inputs: Any = model.input_names
    names = [*inputs, *(layer.name for layer in layers)]
    taken, kept = set(names), set(inputs)
    if len(taken) == len(names):
        return model

    def distinct(layer: Any) -> "keras.layers.Layer":
        name, numbers = layer.name, itertools.count(1)
        while name in kept or (name != layer.name and name in taken):
            name = f"{layer.name}_{next(numbers)}"
        kept.add(name)
        return type(layer).from_config({**layer.get_config(), "name": name})

    return rebuilt(model, distinct)


def exchanged(model: "keras.Model", other: Callable) -> "keras.Model":
    """Return a flat copy of `model` with the layer `other(layer)` where that isn't None.

    Where it is None for all layers, that is `model` itself.
    """
    layers = {id(layer): layer for layer, _ in calls(model)}
    others = {key: other(layer) for key, layer in layers.items()}
    if all(each is None for each in others.values()):
        return model
    return rebuilt(model, lambda layer: others[id(layer)] or copied(layer))


def calls(model: "keras.Model") -> Iterator[tuple["keras.layers.Layer", list]]:
    """Yield each call of a layer and its outputs, inside nested models too, in order."""
    for node in _nodes(model):
        if isinstance(node.layer, keras.Model):
            yield from calls(node.layer)
        else:
            yield node.layer, tf.nest.flatten(node.outputs)


def consumers(model: "keras.Model") -> dict[str, list]:
    """Return by a layer's name the layers that take its outputs, in the order of computation."""
    found = defaultdict(list)
    for node in _nodes(model):
        for layer, *_ in node.iterate_inbound():
            found[layer.name].append(node.layer)
    # A Sequential doesn't count its input among its layers.
    inputs: Any = model.input_names
    names = [*(layer.name for layer in model.layers), *inputs]
    return {name: found[name] for name in names}


def producers(model: "keras.Model") -> dict[str, list]:
    """Return by a layer's name the layers whose outputs it takes, in the order of its arguments."""
    found = defaultdict(list)
    for node in _nodes(model):
        found[node.layer.name] += [layer for layer, *_ in node.iterate_inbound()]
    return {layer.name: found[layer.name] for layer in model.layers}


def only(layers: list) -> Any:
    """Return the one layer that `layers`, such as all consumers, are, None for none or others."""
    return layers[0] if len({id(layer) for layer in layers}) == 1 else None


def operator(layer: Any) -> str:
    """Return the name of the function that an operator `layer` calls, such as `math.add`."""
    return layer.get_config()["function"] if type(layer).__name__ == "TFOpLambda" else ""


def option(layer: Any, name: str) -> Any:
    """Return what the first call of `layer` gives it as the argument `name`, None for nothing."""
    return layer.inbound_nodes[0].call_kwargs.get(name)


def index_inputs(model: "keras.Model") -> dict[str, int]:
    """Return by the name of each input of `model` that is looked up in an Embedding its rows.

    Rounded to a scale its numbers would be those of other rows.
    """
    taken = consumers(model)
    names: Any = model.input_names
    tables = {
        name: [layer for layer in taken[name] if isinstance(layer, keras.layers.Embedding)]
        for name in names
    }
    return {name: min(t.input_dim for t in each) for name, each in tables.items() if each}


def interpreted(model: Any, inputs: list, call: Callable) -> Any:
    """Return the outputs of `model` with `call(node, args, kwargs)` for each call of a layer.

    `inputs` stand for the model's tensors and may be anything that TensorFlow takes for a leaf
    of a structure: what `call` makes of them are the arguments of the calls that follow.
    """
    known = {str(id(x)): _Tensor(y) for x, y in zip(model.inputs, inputs, strict=True)}
    for node in _nodes(model):
        args, kwargs = node.map_arguments(known)
        if isinstance(node.layer, keras.Model):
            outputs = interpreted(node.layer, tf.nest.flatten(args), call)
        else:
            outputs = call(node, args, kwargs)
        for name, output in zip(node.flat_output_ids, tf.nest.flatten(outputs), strict=True):
            known[name] = _Tensor(output)
    outputs = [known[str(id(x))].pop() for x in model.outputs]
    return tf.nest.pack_sequence_as(model._nested_outputs, outputs)


def computed(model: "keras.Model", inputs: list, call: Callable) -> Any:
    """Return the outputs of `model` on `inputs`, tensors of values, layer by layer.

    `call(layer, *args, **kwargs)` stands for each call of a layer: it may look at the values,
    and what it returns is what the layers after it get.
    """
    return interpreted(model, inputs, lambda node, args, kwargs: call(node.layer, *args, **kwargs))


def _input_like(tensor: Any, name: str) -> Any:
    return keras.Input(tensor.shape[1:], batch_size=tensor.shape[0], dtype=tensor.dtype, name=name)


def _nodes(model: Any) -> list:
    """Return the calls of layers of which `model` is made, inputs left out, in order."""
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in nodes if not node.is_input]


class _Tensor(tuple):
    """What `Node.map_arguments` expects: it pops a tensor each time that one is used."""

    def __new__(cls, tensor: Any) -> "_Tensor":
        return super().__new__(cls, (tensor,))

    def pop(self) -> Any:
        return self[0]


def _shapes(layer: Any) -> list[tuple]:
    # By get_weights, which a wrapper may have hand through to the layer inside.
    return [weight.shape for weight in layer.get_weights()]
