"""A model of yours, from a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.checkpoint import load_model
from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.graph import copied, rebuilt, told_apart
from tfopt.models.blocks import DataSpec
from tfopt.spec import spec


@spec
class Saved:
    """The functional or Sequential model in `path`, with its weights: to compress, or a teacher.

    `path` is an HDF5 or .keras file or a SavedModel's folder that Keras 2 (`tf_keras`) wrote.
    Models inside the model are flattened, and a softmax at the end is taken off, since all of
    tfopt works on logits.
    """

    path: str = ""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield `path` where nothing is there."""
        if not self.path or not Path(self.path).expanduser().exists():
            yield "path", "a saved Keras model that exists"

    def __call__(self, data: DataSpec) -> "keras.Model":
        """Return the model; raises ConfigError where it can't be read or doesn't fit `data`."""
        model: Any = self.load()
        received = model.input_shape[1:]
        if len(model.inputs) != 1 or received != tuple(data.shape):
            raise ConfigError(
                f"config.model.path: expected a model that takes examples of shape "
                f"{tuple(data.shape)}, received {self.path}, which takes {received}."
            )
        return model

    def load(self) -> "keras.Model":
        """Return the model; raises ConfigError where it can't be read."""
        return rebuilt_to_logits(self._loaded(), self.path)

    def _loaded(self) -> Any:
        path = Path(self.path).expanduser()
        for field, expected in self.rules():
            raise ConfigError(f"Saved.{field}: expected {expected}, received {self.path!r}.")
        try:
            if path.suffix in (".h5", ".hdf5"):
                return load_model(path)
            return keras.models.load_model(path, compile=False)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise ConfigError(
                f"Saved.path: expected a model that tf_keras can load, received "
                f"{self.path}, of which it says {str(error).strip().splitlines()[0]!r}; save it "
                "with tf_keras (Keras 3's own .keras format is another)."
            ) from error


def rebuilt_to_logits(model: "keras.Model", path: str) -> "keras.Model":
    """Return `model` flat and without a softmax at its end, which `path` names in errors."""
    if not getattr(model, "_is_graph_network", False):
        raise ConfigError(
            f"Saved.path: expected a functional or Sequential model, received {path}, a "
            f"{type(model).__name__} whose layers can't be told apart; rebuild it from layers."
        )
    model = rebuilt(told_apart(model))
    last = model.outputs[0]._keras_history.layer

    def without_softmax(layer: "keras.layers.Layer") -> Any:
        if layer is not last or not is_softmax(layer):
            return copied(layer)
        if isinstance(layer, (keras.layers.Softmax, keras.layers.Activation)):
            return lambda probabilities: probabilities
        return type(layer).from_config({**layer.get_config(), "activation": "linear"})

    return rebuilt(model, without_softmax)


def is_softmax(layer: Any) -> bool:
    """Return whether `layer` ends in probabilities."""
    softmax = getattr(layer, "activation", None) is keras.activations.softmax
    return softmax or isinstance(layer, keras.layers.Softmax)
