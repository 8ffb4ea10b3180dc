import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.graph import consumers, copied, producers, rebuilt, told_apart


def operators():
    inputs = keras.Input((8, 8, 3), name="input")
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    x = shared(shared(keras.layers.Conv2D(4, 1, name="first")(inputs)))
    y = tf.nn.relu(x) * 0.5 + x[:, :, ::-1]
    y = keras.layers.Concatenate(name="concat")([x, y])
    inner = keras.Sequential([keras.Input((8, 8, 8)), keras.layers.Conv2D(2, 3, name="inner")])
    y = keras.layers.GlobalAveragePooling2D(name="pool")(inner(y))
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(y), name="operators")


def recurrent():
    inputs = keras.Input((7,), dtype="int32", name="input")
    x = keras.layers.Embedding(20, 8, mask_zero=True, name="embedding")(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x, use_causal_mask=True)
    x = keras.layers.Bidirectional(keras.layers.LSTM(5), name="lstm")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize("build", [operators, recurrent])
def test_a_copy_computes_the_same_from_weights_of_its_own(build):
    model = build()
    copy = rebuilt(model)
    shape, dtype = model.inputs[0].shape[1:], model.inputs[0].dtype.as_numpy_dtype
    examples = np.random.default_rng(0).integers(1, 20, (3, *shape)).astype(dtype)
    expected = model(examples).numpy()
    np.testing.assert_array_equal(copy(examples).numpy(), expected)
    assert copy.name == model.name
    assert len(copy.weights) == len(model.weights)
    assert not any(isinstance(layer, keras.Model) for layer in copy.layers)
    copy.set_weights([0 * weight for weight in copy.get_weights()])
    np.testing.assert_array_equal(model(examples).numpy(), expected)


def test_layers_of_one_name_are_told_apart():
    def tower(x):
        inside = keras.Input(x.shape[1:])
        layers = keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Conv2D(2, 3, name="conv_1")
        return keras.Model(inside, layers[1](layers[0](inside)))(x)

    inputs = keras.Input((8, 8, 3), name="input")
    model = keras.Model(inputs, keras.layers.Add(name="add")([tower(inputs), tower(inputs)]))
    copy = told_apart(model)
    names = [layer.name for layer in copy.layers]
    assert sorted(names) == ["add", "conv", "conv_1", "conv_1_1", "conv_2", "input"]
    examples = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(copy(examples).numpy(), model(examples).numpy())
    assert told_apart(copy) is copy


def test_a_layer_of_an_inputs_name_is_told_apart_from_it():
    inside = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="one")])
    copy = told_apart(keras.Sequential([keras.Input((8,), name="one"), inside]))
    assert [layer.name for layer in copy.layers] == ["one", "one_1"]


def test_a_layer_becomes_any_function():
    def replace(layer):
        if layer.name == "pool":
            return lambda x: keras.layers.Flatten(name="flat")(x)
        return (lambda x: x) if layer.name == "inner" else copied(layer)

    copy = rebuilt(operators(), replace)
    assert copy.get_layer("logits").kernel.shape == (8 * 8 * 8, 4)
    assert "inner" not in [layer.name for layer in copy.layers]


def test_who_takes_what():
    model = rebuilt(operators())
    assert [layer.name for layer in producers(model)["shared"]] == ["first", "shared"]
    assert [layer.name for layer in consumers(model)["concat"]] == ["inner"]
    assert producers(model)["input"] == []
    assert len(consumers(model)["shared"]) == 4
