"""The examples that a file, or the model that it is made of, takes: an array for each input."""

from typing import Any

import numpy as np

from tfopt.errors import ConfigError

Examples = dict[str, np.ndarray]


def input_names(model: Any) -> list[str]:
    """Return the names that the inputs of `model` have in a file, in the model's order."""
    names = model.input_names
    return ["examples"] if len(names) == 1 else list(names)


def by_name(model: Any, examples: Any) -> Examples:
    """Return `examples` as an array (n, *shape) for each input of `model`, in its order.

    They are an array where there is one input, else a dict by name, or a tuple or list in order.
    Raises ConfigError where they are for other inputs or differ in n.
    """
    names = input_names(model)
    if isinstance(examples, dict):
        received, fits = list(examples), sorted(examples) == sorted(names)
    else:
        given = examples if isinstance(examples, (tuple, list)) else [examples]
        received, fits = len(given), len(given) == len(names)
        examples = dict(zip(names, given, strict=False))
    if not fits:
        raise ConfigError(
            f"examples: expected an array for each input, {', '.join(names)}, received "
            f"{received}; give a dict by name or a tuple in that order."
        )
    found = {name: np.asarray(examples[name]) for name in names}
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"examples: expected as many for each input, received {counts}.")
    return found


def first(examples: Examples, count: int) -> Examples:
    """Return the first `count` of `examples`."""
    return {name: values[:count] for name, values in examples.items()}


def places(interpreter: Any) -> dict[str, dict]:
    """Return by name LiteRT's details of the inputs; it has them in an order of its own.

    A file that wasn't made of a Keras model may have no signature: then by the tensors' names.
    """
    if len(interpreter.get_signature_list()) != 1:
        return {details["name"]: details for details in interpreter.get_input_details()}
    return interpreter.get_signature_runner().get_input_details()
