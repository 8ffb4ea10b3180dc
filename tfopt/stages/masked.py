"""The wrapper that masks a layer's kernel; loads TensorFlow when imported."""

from typing import Any

from tfopt.compat import keras, tf, tfmot_pruning
from tfopt.stages.patterns import folded, losing, unfolded


class Masked(tfmot_pruning.PruneLowMagnitude):
    """tfmot's wrapper, with masks that have `pattern` at every step of `schedule`.

    tfmot itself sets M:N masks at the first step only, whatever the schedule says, and has
    blocks for kernels of two dimensions only.
    """

    def __init__(self, layer: "keras.layers.Layer", schedule: Any, pattern: Any) -> None:
        super().__init__(layer, pruning_schedule=schedule)
        self._pattern = pattern

    def build(self, input_shape: Any) -> None:
        """Make the masks."""
        super().build(input_shape)
        self.pruning_obj = _Masking(
            lambda: self.pruning_step,
            self.pruning_vars,
            self.pruning_schedule,
            block_size=(1, 1),
            block_pooling_type="AVG",
        )
        self.pruning_obj.pattern = self._pattern
        self.pruning_obj.layer_type = type(self.layer).__name__

    def mask_as_at_the_end(self) -> None:
        """Set to zero what the last step of the schedule would."""
        self.pruning_step.assign(self.pruning_step.dtype.max)
        for weight, mask, _ in self.pruning_vars:
            mask.assign(self.pruning_obj._maybe_update_block_mask(weight)[1])
            weight.assign(weight * mask)


class _Masking(tfmot_pruning.pruning_impl.Pruning):
    """Mask kernels by their pattern."""

    def _maybe_update_block_mask(self, weights: Any) -> tuple[Any, Any]:
        """Return a threshold, of which there is none, and the mask of the kernel `weights`."""
        sparsity = self._pruning_schedule(self._step_fn())[1]
        zeros = tf.cast(tf.round(sparsity * weights.shape.num_elements()), tf.int32)
        costs = tf.square(folded(weights, self.layer_type))
        gone = unfolded(losing(self.pattern, costs, zeros), weights.shape, self.layer_type)
        return tf.zeros([], weights.dtype), tf.cast(~gone, weights.dtype)
