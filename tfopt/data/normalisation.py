"""What is subtracted from the values of a source, and what they are divided by."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.compat import tf
from tfopt.data.rows import chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What a model's input is: `(value - mean) / std` per channel of the source's values.

    The channel is the last axis; a single number holds for all channels. `Normalisation()`
    leaves the values as they are, as rows of an Embedding's table must be.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def changes(self) -> bool:
        """Whether it makes other values of them."""
        return any(self.mean) or any(std != 1 for std in self.std)

    def __call__(self, examples: Any) -> Any:
        """Return a batch of the source's values as the model receives them, in float32.

        It is of TensorFlow, or of NumPy for those who have no TensorFlow.
        """
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        if isinstance(examples, np.ndarray):
            return (examples.astype(np.float32) - mean) / std
        return (tf.cast(examples, tf.float32) - mean) / std


def measured(rows: np.ndarray, indices: np.ndarray) -> Normalisation:
    """Return the normalisation that gives the chosen rows mean 0 and deviation 1 per channel."""
    # Position by position, and folded into channels at the end: adding up long rows is fast.
    total, squares = np.zeros((2, int(np.prod(rows.shape[1:]))))
    for _, chunk in chunks(rows, indices):
        # Sums of uint8 are exact in float64: the result can't depend on the size of a chunk.
        values = chunk.reshape(len(chunk), -1).astype(np.float64)
        total += values.sum(axis=0)
        squares += np.einsum("np,np->p", values, values)
    channels = rows.shape[-1]
    count = len(indices) * total.size / channels
    mean = total.reshape(-1, channels).sum(axis=0) / count
    std = np.sqrt(np.maximum(squares.reshape(-1, channels).sum(axis=0) / count - mean**2, 0))
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1)  # a constant channel
    return Normalisation(mean=_rounded(mean), std=_rounded(std))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    # Digits and not decimals, since a float source may have any scale.
    return tuple(float(f"{value:.6g}") for value in values)
