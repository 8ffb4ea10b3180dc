"""One artifact in LiteRT, float32 in and out whatever it takes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfopt.compat import litert
from tfopt.errors import RunError
from tfopt.export import Artifact
from tfopt.export.inputs import places


class ArtifactError(RunError):
    """An artifact doesn't run, or doesn't do what its Keras model does."""


class Runner:
    """An artifact in LiteRT, float32 in and out whatever it takes; raises ArtifactError."""

    def __init__(self, artifact: Artifact, *, threads: int, **options: Any) -> None:
        self._artifact = artifact
        with self._refusing("allocate its tensors"):
            self.interpreter = litert.Interpreter(
                model_content=artifact.content, num_threads=threads, **options
            )
            self.interpreter.allocate_tensors()
        self.inputs = places(self.interpreter)
        self._shapes = {name: tuple(details["shape"]) for name, details in self.inputs.items()}
        self.output = self.interpreter.get_output_details()[0]

    def __call__(self, examples: Any) -> np.ndarray:
        """Return the logits, (batch, classes), of normalised `examples`.

        They are an array, or for a file of several inputs a dict of arrays by name.
        """
        given = examples if isinstance(examples, dict) else {next(iter(self.inputs)): examples}
        if given.keys() != self.inputs.keys():
            raise ArtifactError(
                f"artifact {self._artifact.name!r}: expected a dict of an array for each input, "
                f"{', '.join(self.inputs)}, received {', '.join(given)}."
            )
        shapes = {name: values.shape for name, values in given.items()}
        with self._refusing(f"run a batch of shape {', '.join(map(str, shapes.values()))}"):
            if shapes != self._shapes:
                for name, shape in shapes.items():
                    self.interpreter.resize_tensor_input(self.inputs[name]["index"], shape)
                self.interpreter.allocate_tensors()
                self._shapes = shapes
            for name, details in self.inputs.items():
                self.interpreter.set_tensor(details["index"], quantize(given[name], details))
            self.interpreter.invoke()
        return self.tensor(self.output)

    @contextlib.contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"artifact {self._artifact.name!r}: LiteRT can't {what} "
                f"({' '.join(str(error).split())})."
            ) from error

    def tensor(self, details: dict) -> np.ndarray:
        """Return the values of one tensor, dequantized."""
        return _dequantize(self.interpreter.get_tensor(details["index"]), details)


def quantize(values: np.ndarray, details: dict) -> np.ndarray:
    """Return float `values` as the tensor with these LiteRT `details` takes them."""
    dtype, (scale, zero_point) = np.dtype(details["dtype"]), details["quantization"]
    if dtype.kind not in "iu" or not scale:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantize(values: np.ndarray, details: dict) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * scale if scale else values.astype(np.float32)
