"""An ensemble as one flat Keras model."""

from collections.abc import Iterator
from typing import Any

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.fusion.members import checked, load_all
from tfopt.graph import rebuilt
from tfopt.spec import having, spec

_SMALLEST = 1e-7  # of a probability, as in Keras's own losses


@spec
class MeanLogits:
    """The weighted mean of logits: the geometric mean of the models' probabilities."""

    def combined(self, logits: list, weights: list[float]) -> Any:
        """Return logits (batch, classes) from a list of such, with weights of sum 1."""
        return _mean(logits, weights)


@spec
class MeanProbabilities:
    """The logarithm of the weighted mean of probabilities, which serves as logits."""

    def combined(self, logits: list, weights: list[float]) -> Any:
        """Return logits (batch, classes) from a list of such, with weights of sum 1."""
        softmax, log = keras.layers.Softmax, keras.src.layers.TFOpLambda
        shares = [softmax(name=f"ensemble_softmax{n}")(x) for n, x in enumerate(logits, 1)]
        # A probability that underflows would end in a logit of minus infinity.
        return log(tf.math.log, name="ensemble_log")(_mean(shares, weights, plus=_SMALLEST))


def _mean(tensors: list, weights: list[float], plus: float = 0.0) -> Any:
    parts = [
        keras.layers.Rescaling(weight, plus * weight, name=f"ensemble_weight{number}")(tensor)
        for number, (tensor, weight) in enumerate(zip(tensors, weights, strict=True), 1)
    ]
    return keras.layers.Add(name="ensemble_sum")(parts) if len(parts) > 1 else parts[0]


@spec
class Ensemble:
    """Several models as one that ends in their mean: a teacher, a `config.model`, an export.

    `models` are paths of saved models, objects with `load()` (an ensemble, a soup) or models,
    all with logits of one shape; `weights` are their shares, equal where none are given;
    `output` is MeanLogits() or MeanProbabilities(). Inputs of equal shape and type are one input
    unless `separate`; others become further inputs, in the order of the models, as where a text
    and an image branch are joined. Variants and `evaluate` take examples by the names of several
    inputs; the data of a config have one. Layers keep their names, behind `model1_`, `model2_`,
    ... where two models share one.
    """

    models: tuple[Any, ...]
    weights: tuple[float, ...] | None = None
    output: Any = having("combined", MeanLogits)
    separate: bool = False

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) for fields that don't fit together."""
        weights = self.weights
        if weights is not None and (len(weights) != len(self.models) or min(weights) <= 0):
            yield "weights", f"a number above 0 for each of the {len(self.models)} models"

    def __call__(self, spec: Any) -> "keras.Model":
        """Return the ensemble for data of `spec`; raises ConfigError where it doesn't fit."""
        return checked(self.load(), spec, "Ensemble")

    def load(self) -> "keras.Model":
        """Return the ensemble as one functional model without models inside.

        Raises ConfigError where a model can't be loaded, or ends in other logits.
        """
        for field, expected in self.rules():
            raise ConfigError(f"Ensemble.{field}: expected {expected}, received {self.weights!r}.")
        loaded = load_all(self.models, "Ensemble")
        _check_outputs(loaded)
        members = _named_apart(list(loaded.values()))
        inputs, taken = self._inputs(members)
        weights = self.weights or (1.0,) * len(members)
        logits = [member(given) for member, given in zip(members, taken, strict=True)]
        outputs = self.output.combined(logits, [weight / sum(weights) for weight in weights])
        return rebuilt(keras.Model(inputs, outputs, name="ensemble"))

    def _inputs(self, members: list) -> tuple[Any, list]:
        """Return the inputs of the ensemble, and those that each of `members` takes."""
        inputs, taken = {}, []
        for number, member in enumerate(members, 1):
            mine: list = []
            for tensor, name in zip(member.inputs, member.input_names, strict=True):
                kind = tuple(tensor.shape), tensor.dtype, number if self.separate else 0
                # A model's own inputs are never one, however alike they are.
                key = *kind, sum(other[:3] == kind for other in mine)
                if key not in inputs:
                    if name in (there.name for there in inputs.values()):
                        name = f"model{number}_{name}"
                    inputs[key] = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
                mine.append(key)
            given = [inputs[key] for key in mine]
            taken.append(given if len(given) > 1 else given[0])
        every = list(inputs.values())
        return (every if len(every) > 1 else every[0]), taken


def _check_outputs(models: dict[str, Any]) -> None:
    (first, expected), *others = ((title, model.output_shape) for title, model in models.items())
    for title, shape in [(first, expected), *others]:
        if shape != expected or not isinstance(shape, tuple):
            raise ConfigError(
                f"Ensemble: expected models with one output of one shape, received {shape} of "
                f"{title} and {expected} of {first}."
            )


def _named_apart(models: list) -> list:
    """Return copies of `models` in which no two layers have the same name."""
    flat: list[Any] = [rebuilt(model) for model in models]
    inputs = {name for model in flat for name in model.input_names}
    layers = [x.name for model in flat for x in model.layers if x.name not in model.input_names]
    names = [*inputs, *layers]
    if len(set(names)) < len(names) or any(name.startswith("ensemble") for name in names):
        flat = [_prefixed(model, f"model{number}_") for number, model in enumerate(flat, 1)]
    return [
        keras.Model(model.inputs, model.output, name=f"model{number}")
        for number, model in enumerate(flat, 1)
    ]


def _prefixed(model: "keras.Model", prefix: str) -> "keras.Model":
    def renamed(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = layer.get_config()
        return type(layer).from_config({**config, "name": prefix + layer.name})

    return rebuilt(model, renamed)
