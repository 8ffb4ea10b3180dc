"""Recurrent layers, and the loops over time steps inside them; loads TensorFlow when imported."""

from typing import Any

from tfopt.compat import keras, tf


def loop(layer: "keras.layers.Layer") -> Any:
    """Return the recurrent layer that `layer` is or wraps, None where it has no loop."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return layer if isinstance(layer, keras.layers.RNN) else None


def steps(layer: "keras.layers.Layer") -> int | None:
    """Return how many time steps a call of the recurrent `layer` takes, None where that is open."""
    shape = tf.nest.flatten(layer.get_input_at(0))[0].shape
    axis = 1
    while isinstance(layer, keras.layers.Wrapper):
        axis += isinstance(layer, keras.layers.TimeDistributed)
        layer = layer.layer
    return shape[axis]


def unrolled(layer: "keras.layers.Layer") -> "keras.layers.Layer":
    """Return an unbuilt layer like `layer` with its loops written out, step after step.

    TFLite has a fused operator for an LSTM, but with a state whose batch can't be resized, and
    its converter takes other loops for batches of known size only.
    """
    return type(layer).from_config(_unrolled(layer.get_config()))


def _unrolled(config: Any) -> Any:
    # The config of a wrapper holds those of the layers inside.
    if not isinstance(config, dict):
        return config
    return {key: key == "unroll" or _unrolled(value) for key, value in config.items()}
