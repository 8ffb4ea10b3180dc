"""The ranges that a quantization-aware model begins with; loads TensorFlow when imported."""

from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.rounding import Range


def observe(model: "keras.Model", examples: Any, *, training: bool) -> None:
    """Set the ranges of `model` to the mean of what its unrounded tensors span in a batch.

    `examples` yields batches of the model's input. `training` observes what training will
    see, which differs where BatchNormalization has not yet met the data.
    """
    ranges = [layer for layer in model.layers if isinstance(layer, Range) and layer.learns]
    if not ranges:
        return

    @tf.function
    def spans(batch: Any) -> Any:
        for layer in ranges:
            layer.observed = []
        model(batch, training=training)
        return tf.stack([tf.stack(layer.observed[-1]) for layer in ranges])

    # Training moves the statistics of BatchNormalization.
    weights = model.get_weights() if training else None
    try:
        seen = np.mean([spans(batch).numpy() for batch in examples], axis=0)
    finally:
        for layer in ranges:
            layer.observed = None
    if weights is not None:
        model.set_weights(weights)
    for layer, (low, high) in zip(ranges, seen, strict=True):
        layer.low.assign(low)
        layer.high.assign(high)
