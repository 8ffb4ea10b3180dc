"""The places inside a model that a teacher's objective compares, by the names of its layers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from tfopt.compat import keras, tf
from tfopt.facts import unwrapped
from tfopt.graph import calls, rebuilt

Shape = tuple[int | None, ...]


class Tap(NamedTuple):
    """The output of the layer named `layer`, or with `scores` its attention scores.

    Names are those that layers had before a stage put a wrapper around them.
    """

    layer: str
    scores: bool = False


LOGITS = Tap("")
Pairs = list[tuple[Tap, Tap]]


class Tapped:
    """A model that gives its logits and the values at `taps` by one call, as a dict.

    `model` has the layers of the original, and all of these as its outputs: to call a model
    of the hidden layers beside it would double the work and move BatchNormalization twice.
    """

    def __init__(self, model: "keras.Model", taps: Iterable[Tap]) -> None:
        wanted = sorted(set(taps) - {LOGITS})
        self.taps, self.model = [LOGITS, *wanted], model
        if wanted:
            found: dict[Tap, Any] = {}
            flat: Any = rebuilt(model, lambda layer: _listening(layer, wanted, found))
            outputs = [flat.output, *(found[tap] for tap in wanted)]
            self.model = keras.Model(flat.input, outputs, name=model.name)

    def __call__(self, examples: Any, training: bool | None) -> dict[Tap, Any]:
        """Return the values for `examples`, with LOGITS among them."""
        values = tf.nest.flatten(self.model(examples, training=training))
        return dict(zip(self.taps, values, strict=True))

    def shape(self, tap: Tap) -> Shape:
        """Return the shape of the value at `tap`."""
        return tuple(self.model.outputs[self.taps.index(tap)].shape)


def _listening(layer: Any, wanted: list[Tap], found: dict[Tap, Any]) -> Any:
    name = unwrapped(layer).name

    def call(*args: Any, **kwargs: Any) -> Any:
        if Tap(name, scores=True) not in wanted:
            found[Tap(name)] = outputs = layer(*args, **kwargs)
            return outputs
        outputs = layer(*args, **{**kwargs, "return_attention_scores": True})
        found[Tap(name)], found[Tap(name, scores=True)] = outputs
        return outputs if kwargs.get("return_attention_scores") else outputs[0]

    return call


def hidden(model: "keras.Model") -> dict[str, Shape]:
    """Return the shapes of all outputs of one tensor but the last, in the order of computation."""
    found = [(unwrapped(layer).name, outputs) for layer, outputs in calls(model)]
    return {name: tuple(outputs[0].shape) for name, outputs in found[:-1] if len(outputs) == 1}


def attentions(model: "keras.Model") -> set[str]:
    """Return the names of the layers that have attention scores."""
    kind = keras.layers.MultiHeadAttention
    return {
        unwrapped(layer).name for layer, _ in calls(model) if isinstance(unwrapped(layer), kind)
    }
