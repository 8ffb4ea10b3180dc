"""Rewrite a model so that it rounds wherever TFLite keeps a tensor; loads TensorFlow."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.graph import copied, index_inputs, rebuilt
from tfopt.masks import is_masked, remasked
from tfopt.rounding import Range, Remark, Rounded
from tfopt.stages.quantize import composite
from tfopt.stages.quantize.kinds import FIXED, Kind, activation, kind_of, why_float
from tfopt.stages.quantize.plan import Plan
from tfopt.stages.quantize.timed import at_once

# LiteRT runs kernels of 4 bits in CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED, and not where
# its groups are others than all channels or each.
_EIGHT_BITS = ("Conv1D", "Conv2DTranspose", "DepthwiseConv1D", "SeparableConv1D")
# A reason why what makes a mask stays float.
_COMPARED = "it compares an input that isn't rounded"


def rewritten(
    model: "keras.Model", bits: Callable, *, activations: int, rate: float
) -> "keras.Model":
    """Return a copy of `model` that rounds kernels and activations as its .tflite will.

    `bits(layer)` is that of the layer's kernel, 0 for a layer to leave float; `activations`
    that of tensors, whose ranges move by `rate` a step. Raises ConfigError for a kernel of
    4 bits that LiteRT can't run.
    """
    flat = rebuilt(_with_ranged_inputs(model, activations, rate), at_once)
    return rebuilt(flat, Rewriter(flat, bits, activations=activations, rate=rate))


def _with_ranged_inputs(model: Any, bits: int, rate: float) -> "keras.Model":
    inputs = [
        keras.Input(tensor.shape[1:], batch_size=tensor.shape[0], dtype=tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names, strict=True)
    ]
    indices = index_inputs(rebuilt(model))
    ranged = [
        Range(bits=bits, rate=rate, name=f"{name}_range")(x)
        if x.dtype.is_floating and name not in indices
        else x
        for x, name in zip(inputs, model.input_names, strict=True)
    ]
    nested = model._nested_inputs
    outputs = model(tf.nest.pack_sequence_as(nested, ranged))
    return keras.Model(tf.nest.pack_sequence_as(nested, inputs), outputs, name=model.name)


class Rewriter:
    """For each layer of the flat model: what is called in its place."""

    def __init__(self, flat: Any, bits: Callable, *, activations: int, rate: float) -> None:
        self._plan = Plan(flat, bits, activations)
        self._bits = bits
        self._range = {"bits": activations, "rate": rate}
        self._names: Counter[str] = Counter()
        self._taken = {layer.name for layer in flat.layers}
        self._of = ""

    def __call__(self, layer: Any) -> Callable:
        """Return what is called in place of `layer`."""
        made = self._made(layer)
        if isinstance(made, keras.layers.Layer):
            return made

        def called(*args: Any, **options: Any) -> Any:
            self._of = layer.name
            outputs = made(*args, **options)
            if not is_masked(layer.get_output_at(0)):
                return outputs
            return remasked(outputs, args[0], self.named(f"{layer.name}_masked"))

        return called

    def _made(self, layer: Any) -> Callable:
        if reason := self._plan.reason(layer):
            return self._float(layer, reason)
        if self._bits(layer) == 4:
            _check_four_bits(layer)
        kind = kind_of(layer)
        return (
            composite.build(self, layer) if kind is Kind.COMPOSITE else _BUILDERS[kind](self, layer)
        )

    def named(self, name: str) -> str:
        """Return `name`, numbered where it was taken."""
        self._names[name] += 1
        if self._names[name] == 1:
            return name
        numbered = f"{name}_{self._names[name] - 1}"
        return self.named(name) if numbered in self._taken else numbered

    def ranged(self, tensor: Any, name: str, **options: Any) -> Any:
        """Return `tensor`, or each of several, rounded in a range of its own."""
        if isinstance(tensor, (list, tuple)):
            return [self.ranged(each, name, **options) for each in tensor]
        if not tensor.dtype.is_floating:
            return tensor
        return self.range(name, **options)(tensor)

    def compared(self, mask: Any, tensors: Any, about: str) -> Any:
        """Return `mask`, made of `tensors`, with a remark where those are floats in the file."""
        inputs = [x for x in tensors if hasattr(x, "node") and not x.node.keras_inputs]
        if not any(x.dtype.is_floating for x in inputs):
            return mask
        return Remark(about=about, reason=_COMPARED, name=self.named(f"{about}_float"))(mask)

    def range(self, name: str, **options: Any) -> Range:
        """Return a layer that rounds what it is called with."""
        return Range(**self._range | options, of=self._of, name=self.named(f"{name}_range"))

    def end(self, layer: Any, tensor: Any, **options: Any) -> Any:
        """Return the output of `layer`, rounded unless a later layer does that for it."""
        return tensor if self._plan.absorbed(layer) else self.ranged(tensor, layer.name, **options)

    def kernel(self, layer: Any, of: Any = None) -> Callable:
        """Return a call of `layer` with its kernel rounded, to the bits that `of` has."""
        of = of or layer
        bits = self._bits(of)
        rounded = Rounded(layer, bits=bits)

        def call(x: Any) -> Any:
            if bits != 8:
                x = Remark(about=layer.name, bits=bits, name=self.named(f"{layer.name}_bits"))(x)
            if len(x.shape) == 2 or type(layer).__name__ != "Dense":
                return rounded(x)
            # Keras's own way to multiply more than rows has no bias in TFLite's operator.
            return _unfolded(rounded(tf.reshape(x, (-1, x.shape[-1]))), x.shape[1:-1])

        call.layer = rounded
        return call

    def activated(self, x: Any, name: str, layer: Any, label: str) -> Any:
        """Return the activation `name` of `x`, which is rounded if needed, as layer `label`."""
        if name == "swish":
            gate = self.activated(x, "sigmoid", layer, f"{layer.name}_sigmoid")
            return self.end(layer, keras.layers.Multiply(name=self.named(label))([x, gate]))
        if name == "hard_sigmoid":
            return self._hard_sigmoid(x, layer, label)
        y = keras.layers.Activation(name, name=self.named(label))(x)
        if name in FIXED:
            return self.ranged(y, label, fixed=FIXED[name])
        if name != "gelu":
            y = self._remark(y, layer, why_float(Kind.ACTIVATION, name))
        return self.end(layer, y)

    def _hard_sigmoid(self, x: Any, layer: Any, label: str) -> Any:
        # 0.2 x + 0.5 within 0 and 1, of which TFLite fuses with the sum no bounds but relu6's.
        steep = self.ranged(1.2 * x, f"{layer.name}_steep")
        clipped = self.ranged(tf.nn.relu6(steep + 3.0), f"{layer.name}_clipped", fixed=(0.0, 6.0))
        return self.ranged(clipped * (1 / 6), label, fixed=(0.0, 1.0))

    def closed(self, layer: Any, x: Any) -> Any:
        """Return `x`, the linear output of `layer`, after its activation, rounded."""
        name = activation(layer)
        if name in ("", "linear"):
            return self.end(layer, x)
        # A transposed convolution without a bias isn't fused with what follows.
        if name not in ("relu", "relu6") or type(layer).__name__ == "Conv2DTranspose":
            x = self.ranged(x, f"{layer.name}_linear")
        if name not in ("relu", "relu6"):
            return self.activated(x, name, layer, f"{layer.name}_{name}")
        ceiling = 6.0 if name == "relu6" else None
        relu = keras.layers.ReLU(ceiling, name=self.named(f"{layer.name}_{name}"))
        return self.end(layer, relu(x), nonnegative=True)

    def _kernel(self, layer: Any) -> Callable:
        linear = type(layer).from_config({**layer.get_config(), "activation": None})
        call = self.kernel(linear)
        return lambda x: self.closed(layer, _loaded(call.layer, layer, call(x)))

    def _activation(self, layer: Any) -> Callable:
        return lambda x, **_: self.activated(x, activation(layer), layer, layer.name)

    def _relu(self, layer: Any) -> Callable:
        made = copied(layer)
        return lambda *args, **options: self.end(layer, made(*args, **options), nonnegative=True)

    def _own(self, layer: Any) -> Callable:
        made = copied(layer)
        return lambda *args, **options: self.end(
            layer, _loaded(made, layer, made(*args, **options))
        )

    def _mean(self, layer: Any) -> Callable:
        made = copied(layer)

        def called(x: Any, **options: Any) -> Any:
            y = made(x, **options)
            return _range_of(x)(y, again=True) if x.dtype.is_floating else y

        return called

    def _merge(self, layer: Any) -> Callable:
        made = copied(layer)

        def called(tensors: list) -> Any:
            total, *between, last = tensors
            for tensor in between:
                part = type(layer)(name=self.named(f"{layer.name}_part"))
                total = self.ranged(part([total, tensor]), layer.name)
            return self.end(layer, made([total, last]))

        return called

    def _compares(self, layer: Any) -> Callable:
        made = copied(layer)
        return lambda *args, **options: self.compared(
            made(*args, **options), tf.nest.flatten((args, options)), layer.name
        )

    def _float(self, layer: Any, reason: str) -> Callable:
        made = copied(layer)

        def called(*args: Any, **options: Any) -> Any:
            outputs = _loaded(made, layer, made(*args, **options))
            return self.end(layer, self._remark(outputs, layer, reason))

        return called

    def _remark(self, tensors: Any, layer: Any, reason: str) -> Any:
        def remark(tensor: Any) -> Any:
            if not tensor.dtype.is_floating:
                return tensor
            name = self.named(f"{layer.name}_float")
            return Remark(about=layer.name, reason=reason, name=name)(tensor)

        return tf.nest.map_structure(remark, tensors)


def _check_four_bits(layer: Any) -> None:
    """Raise ConfigError where LiteRT runs no kernel of 4 bits for `layer`."""
    name, groups = type(layer).__name__, getattr(layer, "groups", 1)
    if name in _EIGHT_BITS or (name == "Conv2D" and groups > 1):
        of = f"{name} of {groups} groups" if groups > 1 else name
        raise ConfigError(
            f"weights: expected 4 bits only where LiteRT runs kernels of 4 bits, received "
            f"{layer.name!r}, a {of}; give it 8 by Bits(layers=({layer.name!r},))."
        )


def _loaded(made: Any, original: Any, outputs: Any) -> Any:
    """Return `outputs`, the result of the call that built `made`, now with its weights."""
    if made.weights:
        made.set_weights(original.get_weights())
    return outputs


def _range_of(x: Any) -> Range:
    """Return the layer that rounded the numbers of `x`."""
    made_by = x.node
    while not isinstance(made_by.layer, Range):
        made_by = made_by.keras_inputs[0].node
    return made_by.layer


def _unfolded(x: Any, inner: Any) -> Any:
    return tf.reshape(x, (-1, *inner, x.shape[-1]))


_BUILDERS: dict[Kind, Callable] = {
    Kind.KERNEL: Rewriter._kernel,
    Kind.NORM: Rewriter._own,
    Kind.RELU: Rewriter._relu,
    Kind.OWN: Rewriter._own,
    Kind.MERGE: Rewriter._merge,
    Kind.SAME: lambda self, layer: copied(layer),
    Kind.MEAN: Rewriter._mean,
    Kind.JOINT: Rewriter._own,
    Kind.ACTIVATION: Rewriter._activation,
    Kind.COMPARED: Rewriter._compares,
}
