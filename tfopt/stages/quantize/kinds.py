"""What each Keras layer is to TFLite's converter; loads TensorFlow when imported."""

from enum import Enum, auto
from typing import Any

from tfopt.compat import keras
from tfopt.graph import operator


class Kind(Enum):
    """How the output of a layer is rounded, and what rounds inside."""

    KERNEL = auto()  # rounds its kernel, and its output in a range of its own
    NORM = auto()  # is folded into the kernel before it, or becomes a kernel itself
    RELU = auto()  # is fused into the operator before it
    OWN = auto()  # rounds its output in a range of its own
    MERGE = auto()  # the same, of two or more inputs
    SAME = auto()  # passes on the numbers of its input, and so their range
    MEAN = auto()  # the same, with means of the numbers of its input, which it rounds
    JOINT = auto()  # has one range with all of its inputs
    ACTIVATION = auto()  # one of `ACTIVATIONS`, or else float
    COMPOSITE = auto()  # is built of others
    FLOAT = auto()  # has no int8 kernel
    COMPARED = auto()  # compares numbers, rounded ones if they are, and gives none
    POST = auto()  # is quantized after training only
    UNKNOWN = auto()


_LAYERS = {
    Kind.KERNEL: "Conv1D Conv2D Conv2DTranspose DepthwiseConv1D DepthwiseConv2D Dense",
    Kind.NORM: "BatchNormalization",
    Kind.OWN: "Dot GlobalAveragePooling1D GlobalAveragePooling2D LeakyReLU PReLU Embedding",
    Kind.SAME: "ActivityRegularization AlphaDropout Cropping1D Cropping2D Dropout Flatten "
    "GaussianDropout GaussianNoise GlobalMaxPooling1D GlobalMaxPooling2D MaxPooling1D "
    "MaxPooling2D Permute RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation "
    "RandomTranslation RandomZoom RepeatVector Reshape SpatialDropout1D SpatialDropout2D "
    "UpSampling1D ZeroPadding1D ZeroPadding2D",
    Kind.MEAN: "AveragePooling1D AveragePooling2D",
    Kind.JOINT: "Concatenate Maximum Minimum",
    Kind.ACTIVATION: "Activation",
    Kind.MERGE: "Add Multiply Subtract",
    Kind.COMPOSITE: "Average Bidirectional EinsumDense GRU LSTM LayerNormalization "
    "MultiHeadAttention Normalization Rescaling SeparableConv1D SeparableConv2D SimpleRNN",
    Kind.FLOAT: "Conv3D Conv3DTranspose ELU ThresholdedReLU",
    Kind.POST: "Attention Conv1DTranspose GlobalAveragePooling3D UnitNormalization",
}
_OPERATORS = {
    Kind.RELU: "nn.relu nn.relu6",
    Kind.OWN: "__operators__.add math.abs math.add math.exp math.multiply math.reduce_mean "
    "math.reduce_sum math.squared_difference math.subtract linalg.matmul nn.leaky_relu cast",
    Kind.SAME: "compat.v1.gather compat.v1.gather_nd compat.v1.pad compat.v1.transpose "
    "expand_dims identity image.crop_to_bounding_box image.resize linalg.matrix_transpose "
    "math.reduce_max nn.depth_to_space nn.max_pool2d nn.space_to_depth pad repeat reshape slice "
    "split squeeze stop_gradient strided_slice tile transpose",
    Kind.MEAN: "nn.avg_pool2d",
    Kind.JOINT: "concat math.maximum math.minimum stack",
    Kind.ACTIVATION: "math.sigmoid math.tanh nn.gelu nn.silu nn.softmax",
    Kind.FLOAT: "math.floor math.negative math.sin math.square nn.elu",
    Kind.COMPARED: "math.equal math.greater math.greater_equal math.less math.less_equal "
    "math.not_equal",
    # Of numbers near 0 a rounding makes 0, of which these are infinite, as are their gradients.
    Kind.POST: "math.divide math.log math.rsqrt math.softplus math.sqrt math.truediv nn.selu "
    "reverse",
}
_INTERPOLATIONS = ("nearest", "bilinear")

# TFLite computes these in ranges of their own.
FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# Of the activations that TFLite computes by several operators: those that are int8, each.
_COMPOSED = ("exponential", "mish", "selu", "softplus", "softsign")


# What TFLite's converter leaves float among activations of 16 bits.
_NARROW = ("PReLU", "nn.depth_to_space", "nn.space_to_depth")


def why_float(kind: Kind, name: str, *, wide: bool = False) -> str:
    """Return why a layer called `name` of this kind isn't trained as int8, "" where it is.

    With `wide` activations have 16 bits.
    """
    if wide and name in _NARROW:
        return f"TFLite's converter quantizes no {name} to 16 bits"
    if kind is Kind.POST or name in _COMPOSED:
        return f"the rounding of {name} isn't simulated, but Int8() after training quantizes it"
    if kind is Kind.FLOAT or name == "elu":
        return f"TFLite's converter quantizes no {name}"
    if kind is Kind.UNKNOWN:
        return f"it isn't known how TFLite computes {name}"
    return ""


def _table(named: dict) -> dict[str, Kind]:
    return {name: kind for kind, names in named.items() for name in names.split()}


_OF_LAYER, _OF_OPERATOR = _table(_LAYERS), _table(_OPERATORS)


def kind_of(layer: "keras.layers.Layer") -> Kind:
    """Return what `layer` is, by its class and, where it matters, its options."""
    name = type(layer).__name__
    if name == "SlicingOpLambda":
        return Kind.SAME
    if name == "TFOpLambda":
        return _OF_OPERATOR.get(operator(layer), Kind.UNKNOWN)
    if type(layer) is not getattr(keras.layers, name, None):
        return Kind.SAME if name in ("Range", "Remasked") else Kind.UNKNOWN
    return _BY_OPTIONS.get(name, lambda _: _OF_LAYER.get(name, Kind.UNKNOWN))(layer)


def activation(layer: Any) -> str:
    """Return the name of the function that `layer` activates with, "" for one without."""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if type(layer).__name__ in ("TFOpLambda", "Softmax"):
        name = operator(layer).split(".")[-1] or "softmax"
    return "swish" if name == "silu" else name


def _relu(layer: Any) -> Kind:
    if layer.negative_slope:
        return Kind.FLOAT if layer.max_value or layer.threshold else Kind.OWN
    if layer.threshold:
        return Kind.FLOAT
    return Kind.RELU if layer.max_value in (None, 6) else Kind.POST


def _norm(layer: Any) -> Kind:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    rank = layer.input_spec.ndim or 0
    return Kind.NORM if axis in (-1, rank - 1) and 2 <= rank <= 4 else Kind.POST


def _sampled(layer: Any) -> Kind:
    return Kind.SAME if layer.interpolation in _INTERPOLATIONS else Kind.FLOAT


def _activated(layer: Any) -> Kind:
    if activation(layer) == "linear":
        return Kind.SAME
    return Kind.RELU if activation(layer) in ("relu", "relu6") else Kind.ACTIVATION


def _softmax(layer: Any) -> Kind:
    return Kind.ACTIVATION if layer.axis == -1 else Kind.POST


def _dot(layer: Any) -> Kind:
    return Kind.POST if layer.normalize else Kind.OWN


_BY_OPTIONS = {
    "ReLU": _relu,
    "BatchNormalization": _norm,
    "UpSampling2D": _sampled,
    "Resizing": _sampled,
    "Activation": _activated,
    "Softmax": _softmax,
    "Dot": _dot,
}
