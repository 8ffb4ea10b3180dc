import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.facts import measure
from tfopt.stages import Quantize

L = keras.layers
# For each: the layer, the shape of an example, and its multiply-accumulates.
MACS = {
    "strided": (L.Conv2D(4, 3, strides=2, groups=2), (9, 9, 6), 4 * 4 * 3 * 3 * 3 * 4),
    "depthwise": (L.DepthwiseConv2D(3, strides=2), (9, 9, 2), 4 * 4 * 9 * 2),
    "separable": (L.SeparableConv2D(5, 3, strides=2), (9, 9, 2), 4 * 4 * (9 * 2 + 2 * 5)),
    "transposed": (L.Conv2DTranspose(4, 3, strides=2), (5, 5, 2), 5 * 5 * 9 * 2 * 4),
    "transposed3d": (L.Conv3DTranspose(4, 2, strides=2), (3, 3, 3, 2), 27 * 8 * 2 * 4),
    "steps": (L.Dense(5), (7, 3), 7 * 3 * 5),
    "lstm": (L.LSTM(5), (7, 3), 7 * 4 * 5 * (3 + 5)),
    "open": (L.LSTM(5), (None, 3), 4 * 5 * (3 + 5)),
    "gru": (L.GRU(5, return_sequences=True), (7, 3), 7 * 3 * 5 * (3 + 5)),
    "both": (L.Bidirectional(L.LSTM(5)), (7, 3), 2 * 7 * 4 * 5 * (3 + 5)),
    "each": (L.TimeDistributed(L.Conv2D(4, 3)), (7, 5, 5, 2), 7 * 9 * 9 * 2 * 4),
    "loops": (L.TimeDistributed(L.SimpleRNN(5)), (2, 7, 3), 2 * 7 * 5 * (3 + 5)),
    "images": (L.ConvLSTM2D(4, 3), (7, 5, 5, 2), 7 * 9 * 4 * 9 * 4 * (2 + 4)),
    "heads": (L.EinsumDense("abc,cde->abde", (None, 2, 5)), (7, 3), 7 * 3 * 2 * 5),
    "embedding": (L.Embedding(9, 4), (7,), 0),
}


@pytest.mark.parametrize("name", MACS)
def test_multiply_accumulates_are_those_of_the_definition(name):
    layer, shape, macs = MACS[name]
    inputs = keras.Input(shape)
    assert measure(keras.Model(inputs, layer(inputs))).macs == macs


def test_attention_projects_its_two_inputs_once_each():
    query, value = keras.Input((7, 6)), keras.Input((5, 4))
    attended = L.MultiHeadAttention(2, 3)(query, value)
    expected = 7 * (6 * 2 * 3 + 2 * 3 * 6) + 5 * 2 * (4 * 2 * 3)
    assert measure(keras.Model([query, value], attended)).macs == expected


def test_a_layer_is_counted_at_each_call_and_inside_a_model():
    inputs, shared = keras.Input((9, 9, 2)), L.Conv2D(2, 3)
    model = keras.Model(inputs, shared(shared(inputs)))
    expected = (7 * 7 + 5 * 5) * 9 * 2 * 2
    assert measure(model).macs == expected
    outer = keras.Input((9, 9, 2))
    assert measure(keras.Model(outer, model(outer))).macs == expected


def test_rows_that_quantization_makes_of_places_count():
    inputs = keras.Input((7, 6))
    model = keras.Model(inputs, L.Dense(4, name="each")(inputs))
    samples = tf.data.Dataset.from_tensors((np.ones((2, 7, 6), np.float32), [0, 1]))
    made = Quantize().finish(Quantize().prepare(model, 9, samples))
    assert measure(made).macs == measure(model).macs == 7 * 6 * 4
