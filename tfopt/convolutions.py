"""Convolutions in the one operator that LiteRT has for them; loads TensorFlow when imported.

Keras computes a dilated one by a plain one between two shufflings of its input, for which the
converter has no rounding; compiles one of several groups apart, which loses its name; and adds
the bias of a transposed one of sounds where LiteRT dies of it in 16 bits.
"""

from typing import Any

from tfopt.compat import keras, tf


def rewritten(layer: "keras.layers.Layer") -> Any:
    """Return an unbuilt layer like `layer` of one operator, None where it is one."""
    other = _OTHERS.get(type(layer))
    if other is None or layer.data_format != "channels_last":
        return None
    plain = max(layer.dilation_rate) == 1
    if type(layer) is keras.layers.Conv1DTranspose:
        # What makes an image of one row of it must know how long the row is.
        as_it_is = not plain or layer.get_input_at(0).shape[1] is None
    else:
        as_it_is = plain and layer.groups == 1
    return None if as_it_is else other.from_config(layer.get_config())


class _Conv1D(keras.layers.Conv1D):
    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return `inputs` convolved with `kernel`."""
        return tf.nn.conv1d(
            inputs, kernel, self.strides, _padding(self), dilations=self.dilation_rate
        )

    def _jit_compiled_convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return self.convolution_op(inputs, kernel)


class _Conv2D(keras.layers.Conv2D):
    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return `inputs` convolved with `kernel`."""
        return tf.nn.conv2d(
            inputs, kernel, self.strides, _padding(self), dilations=self.dilation_rate
        )

    def _jit_compiled_convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return self.convolution_op(inputs, kernel)


class _Conv1DTranspose(keras.layers.Conv1DTranspose):
    def call(self, inputs: Any) -> Any:
        """Return `inputs` convolved as an image of one row."""
        layer: Any = self
        _, steps, filters = layer.compute_output_shape(inputs.shape)
        outputs = tf.nn.conv2d_transpose(
            inputs[:, None],
            tf.convert_to_tensor(layer.kernel)[None],
            tf.stack([tf.shape(inputs)[0], 1, steps, filters]),
            (1, *layer.strides),
            _padding(layer),
        )
        if layer.use_bias:
            outputs = tf.nn.bias_add(outputs, layer.bias)
        return layer.activation(tf.squeeze(outputs, 1))


class _DepthwiseConv1D(keras.layers.DepthwiseConv1D):
    def call(self, inputs: Any) -> Any:
        """Return `inputs` convolved channel by channel."""
        kernel = tf.convert_to_tensor(self.depthwise_kernel)[None]
        outputs = _by_channel(self, inputs[:, None], kernel, (1, *self.dilation_rate))
        return tf.squeeze(outputs, 1)


class _DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    def call(self, inputs: Any) -> Any:
        """Return `inputs` convolved channel by channel."""
        kernel = tf.convert_to_tensor(self.depthwise_kernel)
        return _by_channel(self, inputs, kernel, self.dilation_rate)


def _by_channel(layer: Any, inputs: Any, kernel: Any, rates: tuple[int, ...]) -> Any:
    outputs = tf.raw_ops.DepthwiseConv2dNative(
        input=inputs,
        filter=kernel,
        strides=(1, 1, 1, 1),  # Keras has no others where rates are more than 1
        padding=_padding(layer),
        dilations=(1, *rates, 1),
    )
    return layer.activation(tf.nn.bias_add(outputs, layer.bias) if layer.use_bias else outputs)


def _padding(layer: Any) -> Any:
    # What is causal was padded before.
    return "VALID" if layer.padding == "causal" else layer.padding.upper()


_OTHERS = {
    keras.layers.Conv1D: _Conv1D,
    keras.layers.Conv1DTranspose: _Conv1DTranspose,
    keras.layers.Conv2D: _Conv2D,
    keras.layers.DepthwiseConv1D: _DepthwiseConv1D,
    keras.layers.DepthwiseConv2D: _DepthwiseConv2D,
}
