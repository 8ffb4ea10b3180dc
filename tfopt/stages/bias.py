"""Bias correction (Nagel et al. 2019, "Data-free quantization", section 4.2, with data)."""

from collections import defaultdict
from typing import Any, ClassVar

import numpy as np

from tfopt.compat import keras, tf
from tfopt.graph import computed
from tfopt.spec import bounded, spec
from tfopt.stages.base import Stage
from tfopt.stages.fold import by_output, folded, linear, output_rows


@spec
class CorrectBias(Stage):
    """Take from each bias what rounding the kernel to `bits` adds to its channel in the mean.

    The rounding is that of Int8() or, with 4 bits, of EdgeQuantized(weights=MinMax()): to
    nearest, with a scale for each output channel. The mean is over `batches` batches and all
    positions. The model itself is off by as much the other way: it is a preparation of the
    file. BatchNormalization is folded first.
    """

    needs_trained: ClassVar[bool] = True
    goes_last: ClassVar[bool] = True
    scales_channels: ClassVar[bool] = True

    name: str = "correct_bias"
    epochs: int = bounded(0, least=0)
    bits: int = 8
    batches: int = bounded(8, least=1)

    def rules(self) -> Any:
        """Yield what is impossible."""
        yield from Stage.rules(self)
        if self.bits not in (4, 8):
            yield "bits", "4 or 8"

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return `model` without BatchNormalization that folds, and its biases corrected."""
        del steps
        model = folded(model)
        layers = linear(model)
        for name, mean in _mean_inputs(model, samples.take(self.batches), set(layers)).items():
            kernel, bias = layers[name].get_weights()
            error = rounded(layers[name], kernel, self.bits) - kernel
            layers[name].set_weights([kernel, bias - _response(layers[name], error, mean)])
        return model


def rounded(layer: Any, kernel: np.ndarray, bits: int) -> np.ndarray:
    """Return `kernel` rounded to `bits` symmetrically, with a scale for each output channel."""
    peaks = np.abs(output_rows(layer, kernel)).max(1)
    scales = by_output(layer, np.where(peaks > 0, peaks, 1) / (2 ** (bits - 1) - 1))
    return np.round(kernel / scales) * scales


def _mean_inputs(model: "keras.Model", batches: Any, names: set[str]) -> dict[str, Any]:
    """Return by layer what it takes in the mean over all examples, in the shape of one."""
    means: dict[str, list] = defaultdict(list)

    def watch(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in names:
            means[layer.name].append(tf.reduce_mean(args[0], 0))
        return layer(*args, **kwargs)

    for examples, *_ in batches:
        computed(model, [tf.cast(examples, model.inputs[0].dtype)], watch)
    return {name: tf.reduce_mean(tf.stack(seen), 0) for name, seen in means.items()}


def _response(layer: Any, kernel: np.ndarray, inputs: Any) -> np.ndarray:
    """Return what `kernel` alone makes of `inputs` in each channel, in the mean over positions.

    The layer is linear: the mean of its outputs is its output on the mean.
    """
    plain = {**layer.get_config(), "use_bias": False, "activation": "linear"}
    alone = type(layer).from_config(plain)
    alone.build((None, *inputs.shape))
    alone.set_weights([kernel])
    outputs = alone(inputs[None]).numpy()
    return outputs.reshape(-1, outputs.shape[-1]).mean(0)
