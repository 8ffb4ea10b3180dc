import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.facts import is_quantized, kernel_variables, measure, sparsity
from tfopt.stages import Prune, Quantize


def model():
    inputs = keras.Input((8, 8, 3), name="input")
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def test_counts_what_can_be_counted_by_hand():
    made = model()
    kernel = made.get_layer("conv").kernel
    kernel.assign(np.where(np.arange(108).reshape(kernel.shape) < 27, 0.0, 1.0))
    facts = measure(made)
    assert facts.params == made.count_params() == 108 + 16 + 40 + 50
    assert facts.macs == 16 * 108 + 16 * 36 + 40
    assert [(k.layer, k.zeros, k.size) for k in facts.kernels] == [
        ("conv", 27, 108),
        ("depthwise", 0, 36),
        ("logits", 0, 40),
    ]
    assert facts.sparsity == 27 / 184
    assert (facts.kernels[0].distinct, facts.kernels[0].distinct_total) == (2, 2)
    assert (facts.kernels[1].distinct, facts.kernels[1].distinct_total) == (9, 36)
    assert [k.channel_nonzeros for k in facts.kernels] == [20, 9, 4]


@pytest.mark.parametrize("stage", [Prune(), Quantize()])
def test_wrappers_change_no_fact(stage):
    made = model()
    before = measure(made)
    samples = tf.data.Dataset.from_tensors((np.ones((2, 8, 8, 3), np.float32), 0))
    prepared = stage.prepare(made, 10, samples)
    assert is_quantized(prepared) == stage.quantizes
    assert measure(prepared) == before
    assert kernel_variables(prepared).keys() == kernel_variables(made).keys()


def test_no_kernels_have_no_zeros():
    assert sparsity(()) == 0.0


def recurrent_and_attention():
    inputs = keras.Input((6, 8), name="input")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3), name="both")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def test_each_kernel_inside_a_layer_has_a_name_of_its_own_that_a_copy_shares():
    made, twice = recurrent_and_attention(), recurrent_and_attention()
    names = [f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")]
    for way in ("forward", "backward"):
        names += [f"both/{way}_lstm/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel")]
    assert [kernel.key for kernel in measure(made).kernels] == [*names, "logits/kernel"]
    assert list(kernel_variables(twice)) == [*names, "logits/kernel"]
    sizes = [kernel.size for kernel in measure(made).kernels]
    assert sizes == [value.numpy().size for value in kernel_variables(made).values()]
