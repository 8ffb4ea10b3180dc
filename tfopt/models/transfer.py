"""ResNet50 with ImageNet's weights and a new classifier."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.models import blocks
from tfopt.spec import spec

_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{_FILE}"
_INSTEAD = "--config.model.weights=PATH for a copy elsewhere, or 'none' for random weights"


@spec
class ResNet50Transfer:
    """ResNet50 (He et al. 2015) without its top, then Dense 1024, 512 and the classes.

    `weights` is "imagenet", "none", or the path of an .h5 file of keras.applications'
    ResNet50 without top. Input (height, width, 3), at least 32x32, RGB from 0 to 255 with
    only ImageNet's mean subtracted: mean (123.68, 116.779, 103.939) and std (1, 1, 1) in the
    data. Raises ConfigError for other shapes and for weights that can't be had.
    """

    weights: str = "imagenet"

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield `weights` where it names no file."""
        if self.weights not in ("imagenet", "none") and not _is_h5(self.weights):
            yield "weights", "'imagenet', 'none' or the path of an .h5 file that exists"

    def __call__(self, spec: blocks.DataSpec) -> "keras.Model":
        """Return a new model, its classifier with random weights."""
        if len(spec.shape) != 3 or min(spec.shape[:2]) < 32 or spec.shape[2] != 3:
            raise ConfigError(
                "config.model: ResNet50Transfer expected images of at least (32, 32, 3), "
                f"received examples of shape {tuple(spec.shape)}; resize them in config.data."
            )
        inputs = blocks.image_input(spec)
        body = self._body(inputs)
        x = keras.layers.Flatten(name="flatten")(body.output)
        for index, units in enumerate((1024, 512), start=1):
            x = blocks.dense(x, units, f"dense{index}")
        return blocks.classify(inputs, x, spec, "resnet50_transfer")

    def _body(self, inputs: object) -> "keras.Model":
        weights: Any = None if self.weights == "none" else str(Path(self.weights).expanduser())
        try:
            body = keras.applications.ResNet50(
                include_top=False, weights=weights, input_tensor=inputs
            )
        # Keras raises a bare Exception for a failed download, and four kinds for a bad file.
        except Exception as error:
            raise ConfigError(self._unavailable(error)) from error
        if weights:
            _take_rgb(body)
        return body

    def _unavailable(self, error: Exception) -> str:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if self.weights == "imagenet":
            return (
                f"config.model.weights: ImageNet's weights can't be fetched ({reason}); save "
                f"{_URL} as {Path('~/.keras/models', _FILE)}, or use {_INSTEAD}."
            )
        return (
            "config.model.weights: expected an .h5 file of keras.applications' ResNet50 without "
            f"top, received {self.weights!r}, which can't be read ({reason}); use 'imagenet' or "
            f"{_INSTEAD}."
        )


def _is_h5(path: str) -> bool:
    return Path(path).suffix == ".h5" and Path(path).expanduser().is_file()


def _take_rgb(body: "keras.Model") -> None:
    """Flip the stem's input channels: the weights were trained on BGR, our data is RGB.

    Only the order of the terms of a sum changes, so this is exact, and free at inference.
    """
    stem = body.get_layer("conv1_conv")
    kernel, bias = stem.get_weights()
    stem.set_weights([kernel[:, :, ::-1, :], bias])
