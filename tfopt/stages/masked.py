"""The wrapper that masks a layer's kernels; loads TensorFlow when imported."""

import inspect
from typing import Any

from tfopt.compat import keras, tf, tfmot_pruning
from tfopt.facts import inner_type, kernels_of
from tfopt.stages.patterns import folded, losing, unfolded


class Masked(tfmot_pruning.PruneLowMagnitude):
    """tfmot's wrapper, with masks that have `pattern` at every step of the schedule.

    tfmot itself sets M:N masks at the first step only, whatever the schedule says, has blocks
    for kernels of two dimensions only, prunes all kernels of a layer alike, and fails on
    attention and behind an Embedding that masks. `shares` are the shares of zeros in the end
    by the name of a kernel, of which `schedule` goes to the largest.
    """

    def __init__(
        self, layer: "keras.layers.Layer", schedule: Any, pattern: Any, shares: dict[str, float]
    ) -> None:
        layer.get_prunable_weights = lambda: [dict(kernels_of(layer))[name] for name in shares]
        super().__init__(layer, pruning_schedule=schedule)
        self.supports_masking = layer.supports_masking
        self._pattern = pattern
        self._shares = shares

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
        self.pruning_obj.inner_type = inner_type(self.layer)
        self.pruning_obj.shares = self._shares

    # The arguments stand where attention has them: Keras looks for `training` by its place.
    def call(
        self,
        inputs: Any,
        value: Any = None,
        key: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return what the layer makes of `inputs` and, in attention, of the others."""
        options |= {"value": value, "key": key, "attention_mask": attention_mask}
        # Keras hands a mask to whatever takes any keyword.
        takes = inspect.signature(self.layer.call).parameters
        known = {name: given for name, given in options.items() if name in takes}
        return super().call(inputs, training=training, **known)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask that the layer hands on."""
        return self.layer.compute_mask(inputs, mask)

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
        kernels = [weight for weight, *_ in self._pruning_vars]
        pairs = zip(kernels, self.shares, strict=True)
        name = next(name for kernel, name in pairs if kernel is weights)
        relative = self.shares[name] / max(self.shares.values())
        sparsity = relative * self._pruning_schedule(self._step_fn())[1]
        zeros = tf.cast(tf.round(sparsity * weights.shape.num_elements()), tf.int32)
        costs = tf.square(folded(weights, self.inner_type, name))
        gone = unfolded(losing(self.pattern, costs, zeros), weights.shape, self.inner_type)
        return tf.zeros([], weights.dtype), tf.cast(~gone, weights.dtype)
