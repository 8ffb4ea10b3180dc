"""The layers by which a Keras model computes as whole-number arithmetic will.

They replace tfmot's quantizers: those give a Dense and a DepthwiseConv2D one scale for all of
their channels, move ranges by a fixed 0.999 from a fixed start, and let replicas disagree.
Loads TensorFlow when imported.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from tfopt.compat import keras, tf
from tfopt.graph import copied, rebuilt

# Of a step: less than any two means of codes differ by, more than floats are off.
_NUDGE = 1e-3
# Below it a range is one of zeros only, for which there is no scale.
_LEAST = 1e-7
# A reason why a layer stays float.
BY_CONFIG = "the config says so"


@keras.saving.register_keras_serializable(package="tfopt")
class Range(keras.layers.Layer):
    """Rounds its input to `bits`-bit numbers within a range, and learns that range.

    The range is a moving average of each batch's smallest and largest value, moved by `rate` a
    step, and always contains 0; it is `fixed` (low, high) where TFLite prescribes it.
    `nonnegative` spares the search for a smallest value; `of` is the layer before quantization
    whose numbers these are. Every replica sees the whole batch's range. 16 bits are left
    unrounded: what they take is nothing to learn from. The range reaches by `below` under the
    smallest value.
    """

    def __init__(
        self,
        *,
        bits: int = 8,
        rate: float = 0.0,
        fixed: tuple[float, float] | None = None,
        nonnegative: bool = False,
        below: float = 0.0,
        of: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.bits, self.rate, self.fixed, self.nonnegative = bits, rate, fixed, nonnegative
        self.below, self.of = below, of
        self.supports_masking = True
        self.observed: list | None = None
        self.converting = False

    def build(self, shape: Any) -> None:
        """Make the two ends of the range."""
        del shape
        constant: Any = keras.initializers.Constant
        low, high = self.fixed or (0.0 if self.nonnegative else -1.0, 1.0)
        self.low, self.high = (
            self.add_weight(
                name=name,
                shape=(),
                initializer=constant(value),
                trainable=False,
                # Equal on all replicas by arithmetic; an assignment needs no agreement.
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for name, value in (("range_low", low), ("range_high", high))
        )
        self.built = True

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        *,
        again: bool = False,
        learns: bool = True,
    ) -> Any:
        """Return `inputs`, rounded.

        The range learns nothing of what was rounded before and is so `again`, nor where it
        doesn't learn now since a later call brings the same numbers.
        """
        return self._rounded(inputs, training, again, learns and not again)

    # AutoGraph would take its time with every one of hundreds of layers.
    @tf.autograph.experimental.do_not_convert
    def _rounded(self, inputs: Any, training: bool | None, again: bool, learns: bool) -> Any:
        if self.bits == 16 or (again and self.converting):
            return inputs
        if self.observed is not None:
            self.observed += [self.extremes(inputs)] if learns else []
            return inputs
        low, high = self.low.read_value(), self.high.read_value()
        if training and self.rate and self.learns and learns:
            lowest, highest = _over_replicas(*self.extremes(inputs))
            low, high = (
                old + self.rate * (new - old) for old, new in ((low, lowest), (high, highest))
            )
            self.low.assign(low)
            self.high.assign(high)
        high = tf.maximum(high, low + _LEAST)
        if again:
            inputs = _off_the_half(inputs, low, high, self.bits)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, self.bits)

    @property
    def learns(self) -> bool:
        """Whether the range is learned from data."""
        return self.bits < 16 and not self.fixed

    def extremes(self, inputs: Any) -> tuple[Any, Any]:
        """Return the ends of a range of `inputs` and 0."""
        inputs = tf.stop_gradient(inputs)
        low = tf.zeros(()) if self.nonnegative else tf.minimum(tf.reduce_min(inputs), 0.0)
        return low - self.below, tf.maximum(tf.reduce_max(inputs), 0.0)

    def get_config(self) -> dict:
        """Return the options."""
        options = ("bits", "rate", "fixed", "nonnegative", "below", "of")
        return {**super().get_config(), **{name: getattr(self, name) for name in options}}


@keras.saving.register_keras_serializable(package="tfopt")
class Remark(keras.layers.Layer):
    """Passes its input on and keeps what the artifact's maker must know of the layer `about`.

    That is the number of `bits` of a kernel that isn't stored in 8, or the `reason` why the
    layer stays float.
    """

    def __init__(self, *, about: str, bits: int = 8, reason: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.about, self.bits, self.reason = about, bits, reason
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Return `inputs`."""
        if not self.reason or not inputs.dtype.is_floating:
            return tf.identity(inputs)
        # TFLite's converter quantizes whatever stands between two ranges; this is an operator
        # that it neither quantizes nor folds away, and it changes no bit but of negatives' last.
        return tf.nn.leaky_relu(inputs, alpha=1 - 2**-22)

    def get_config(self) -> dict:
        """Return the options."""
        own = {"about": self.about, "bits": self.bits, "reason": self.reason}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tfopt")
class Rounded(keras.layers.Wrapper):
    """A layer with a kernel, which it uses rounded while it is trained unrounded.

    Symmetric, one scale for each output channel (Jacob et al. 2017; Krishnamoorthi 2018).
    """

    def __init__(self, layer: "keras.layers.Layer", *, bits: int, **options: Any) -> None:
        super().__init__(layer, **{"name": layer.name, **options})
        self.bits = bits
        self.supports_masking = layer.supports_masking

    def call(self, inputs: Any) -> Any:
        """Return what the layer computes with its rounded kernel."""
        name = kernel_name(self.layer)
        # Past Keras's tracking: the layer must keep its variable.
        inside: Any = vars(self.layer)
        kernel = inside[name]
        inside[name] = self.rounded()
        try:
            return self.layer(inputs)
        finally:
            inside[name] = kernel

    def get_config(self) -> dict:
        """Return the options."""
        return {**super().get_config(), "bits": self.bits}

    def rounded(self) -> Any:
        """Return the kernel as it is used."""
        kernel: Any = tf.convert_to_tensor(getattr(self.layer, kernel_name(self.layer)))
        if isinstance(self.layer, keras.layers.Conv2DTranspose):
            return tf.transpose(_round(tf.transpose(kernel, (0, 1, 3, 2)), self.bits), (0, 1, 3, 2))
        channels = kernel.shape[-1]
        if isinstance(self.layer, (keras.layers.DepthwiseConv2D, keras.layers.DepthwiseConv1D)):
            channels *= kernel.shape[-2]
        return tf.reshape(_round(tf.reshape(kernel, (-1, channels)), self.bits), kernel.shape)


@keras.saving.register_keras_serializable(package="tfopt")
class Zeros(keras.layers.Layer):
    """Returns zeros, (1, units), whatever it is called with: what depends on them is constant."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def call(self, inputs: Any) -> Any:
        """Return zeros of the type of `inputs`."""
        return tf.zeros((1, self.units), inputs.dtype)

    def get_config(self) -> dict:
        """Return the options."""
        return {**super().get_config(), "units": self.units}


def left_float(model: "keras.Model") -> dict[str, str]:
    """Return by the name of each layer that stays float in `model` the reason for it."""
    return {each.about: each.reason for each in _remarks(model) if each.reason}


def ranges(model: "keras.Model") -> dict[str, tuple[Any, Any]]:
    """Return low and high end of what each layer of `model` rounds to, by its name.

    Of a kernel it is that of all of its channels.
    """
    found = {}
    for layer in model.layers:
        if isinstance(layer, Range) and layer.bits < 16:
            # As tensors, since what a strategy spreads over replicas is no number.
            found[layer.name] = (tf.convert_to_tensor(layer.low), tf.convert_to_tensor(layer.high))
        if isinstance(layer, Rounded):
            name = kernel_name(layer.layer)
            kernel = getattr(layer.layer, name)
            found[f"{layer.name}/{name}"] = (tf.reduce_min(kernel), tf.reduce_max(kernel))
    return found


def four_bits(model: "keras.Model") -> set[str]:
    """Return the names of the layers of `model` whose kernels have 4 bits."""
    return {each.about for each in _remarks(model) if each.bits == 4}


def unranged(model: "keras.Model") -> "keras.Model":
    """Return `model` with rounded kernels and float activations, as calibration takes it."""

    def replace(layer: Any) -> Any:
        return (lambda x, **_: x) if isinstance(layer, (Range, Remark)) else copied(layer)

    return rebuilt(model, replace)


@contextlib.contextmanager
def converting(model: "keras.Model") -> Iterator[None]:
    """Make `model`, while it is traced for TFLite, leave to that what it rounds by itself."""
    ranges = [layer for layer in model.layers if isinstance(layer, Range)]
    for layer in ranges:
        layer.converting = True
    try:
        yield
    finally:
        for layer in ranges:
            layer.converting = False


def _remarks(model: Any) -> list[Remark]:
    return [layer for layer in model.layers if isinstance(layer, Remark)]


def kernel_name(layer: "keras.layers.Layer") -> str:
    """Return under which name `layer` has its kernel."""
    return "depthwise_kernel" if hasattr(layer, "depthwise_kernel") else "kernel"


def _off_the_half(values: Any, low: Any, high: Any, bits: int) -> Any:
    """Return `values`, those between two of the codes from `low` to `high` closer to one of them.

    Means of codes are often halves, which TFLite rounds away from the code 0.
    """
    step = (high - low) / (2**bits - 1)
    zero = (2 ** (bits - 1) + tf.round(low / step)) * step
    return values + _NUDGE * step * tf.sign(tf.stop_gradient(values) - zero)


def _round(kernel: Any, bits: int) -> Any:
    """Return `kernel`, channels last, on each channel's grid of 2 ** bits - 1 values."""
    axes = list(range(len(kernel.shape) - 1))
    most = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axes), _LEAST)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -most, most, bits, narrow_range=True
    )


def _over_replicas(low: Any, high: Any) -> tuple[Any, Any]:
    """Return the smallest and the largest of what the replicas found."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return low, high
    # Only here as one tensor: a gathering is a meeting of all replicas.
    ends = tf.reduce_max(context.all_gather(tf.stack([[-low, high]]), axis=0), axis=0)
    return -ends[0], ends[1]
