import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.errors import RunError
from tfopt.facts import Facts, Kernel, kernel_variables, measure
from tfopt.stages import AtOnce, Equalize, Prune, Quantize, Stage
from tfopt.stages.hold import Counts, check_held, hold, lost_on_the_way
from tfopt.testing import check_stage


def compressed(sparse, levels):
    """Return a small model whose kernels have zeros and few values in each channel."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(8, 3, name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    rng = np.random.default_rng(0)
    for name in ("conv", "conv2"):
        kernel = model.get_layer(name).kernel
        values = kernel.numpy()
        if levels:
            values = np.sign(values) * rng.choice(levels, values.shape)
        kernel.assign(values * (rng.random(values.shape) > sparse))
    return model


@pytest.mark.parametrize("stage", [Stage(epochs=2), Quantize(epochs=2)])
@pytest.mark.parametrize(("sparse", "levels"), [(0.6, ()), (0.0, (0.1, 0.3)), (0.5, (0.1, 0.3))])
def test_training_goes_on_and_keeps_zeros_and_shared_values(stage, sparse, levels):
    model = compressed(sparse, levels)
    before, weights = measure(model), model.get_layer("conv2").kernel.numpy()
    trained = check_stage(stage, model)
    zeros = zip(measure(trained).kernels, before.kernels, strict=True)
    assert all(after.zeros >= first.zeros for after, first in zeros)  # rounding makes some more
    if levels:
        assert all(k.distinct <= 5 for k in measure(trained).kernels[:2])
    moved = next(w.numpy() for w in trained.weights if "conv2/kernel" in w.name)
    assert not np.array_equal(moved, weights)


def test_weights_that_a_pruning_wrapper_masks_pull_no_shared_value_towards_zero():
    model = compressed(0.0, (0.1, 0.3))
    pruned = Prune(sparsity=0.5).prepare(model, 100, None)
    pruning = pruned.layers[4]
    kernel, mask, _ = pruning.pruning_vars[0]
    mask.assign(np.random.default_rng(0).random(mask.shape) < 0.5)
    kernel.assign(kernel * mask)
    hold(pruned, trained=True)
    values = kernel.numpy()
    kernel.assign(values + 0.01 * np.where(values == 0, 5, np.sign(values)))
    kernel.assign(kernel.constraint(kernel))
    assert np.allclose(kernel, values + 0.01 * np.sign(values))
    assert len(np.unique(kernel)) == 5


def test_values_are_shared_by_all_channels_of_a_depthwise_kernel():
    inputs = keras.Input((4, 4, 16), name="input")
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs))
    kernel = model.layers[1].depthwise_kernel
    values = np.random.default_rng(0).choice(np.arange(1.0, 13), kernel.shape)
    kernel.assign(values)
    hold(model, trained=True)
    kernel.assign(values + np.random.default_rng(1).random(kernel.shape))
    kernel.assign(kernel.constraint(kernel))
    for value in np.unique(values):
        assert np.unique(kernel.numpy()[values == value]).size == 1


def facts(zeros, distinct=100, total=1000):
    kernel = Kernel(
        layer="conv",
        layer_type="Conv2D",
        inner_type="Conv2D",
        name="kernel",
        shape=(100, 10),
        zeros=zeros,
        distinct=distinct,
        distinct_total=total,
    )
    return Facts(kernels=(kernel,), params=100, macs=0)


def test_raises_with_both_numbers_where_something_was_lost():
    check_held("fit", facts(800), facts(800))
    check_held("fit", facts(10), facts(0))  # chance, and no sparsity
    with pytest.raises(RunError, match="the 800 zeros of layer 'conv' to stay, measured 799"):
        check_held("fit", facts(800), facts(799))
    with pytest.raises(RunError, match="16 distinct values per channel of layer .* measured 17"):
        check_held("fit", facts(0, 16), facts(0, 17))
    with pytest.raises(RunError, match="the 16 distinct values of layer 'conv' .* measured 300"):
        check_held("fit", facts(0, 16, 16), facts(0, 16, 300))


def test_zeros_that_were_added_are_one_value_more():
    check_held("prune", facts(0, 16, 16), facts(500, 17, 17))
    with pytest.raises(RunError, match="measured 18"):
        check_held("prune", facts(0, 16, 16), facts(500, 18, 18))


def dense(values):
    inputs = keras.Input((8,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(8, name="logits")(inputs))
    model.get_layer("logits").kernel.assign(values)
    return model


@pytest.mark.parametrize("values", [np.zeros((8, 8)), np.ones((8, 8)), 0.5 * np.eye(8)])
def test_what_an_initializer_made_is_free_until_a_stage_has_trained_it(values):
    model = dense(values)
    hold(model, trained=False)
    assert model.get_layer("logits").kernel.constraint is None
    check_held("train", measure(model), measure(dense(np.random.rand(8, 8))), trained=False)
    hold(model, trained=True)
    assert model.get_layer("logits").kernel.constraint is not None


def test_zeros_of_a_model_that_a_function_loads_stay_in_the_first_stage():
    rng = np.random.default_rng(0)
    model = dense(rng.normal(size=(8, 8)) * (rng.random((8, 8)) > 0.6))
    hold(model, trained=False)
    kernel = model.get_layer("logits").kernel
    zeros = kernel.numpy() == 0
    assert np.array_equal(kernel.constraint(kernel + 1.0) == 0, zeros)


def perceptron(zeros):
    inputs = keras.Input((64,), name="input")
    x = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(64, name="logits")(x))
    rng = np.random.default_rng(0)
    for name in ("hidden", "logits"):
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.normal(size=(64, 64)) * (rng.random((64, 64)) >= zeros))
    return model


def test_a_pruned_kernel_is_none_of_shared_values():
    pruned = perceptron(zeros=0.8)
    equalized = Equalize().prepare(pruned, 0, tf.data.Dataset.from_tensors((np.ones((2, 64)), 0)))
    check_held("equalize", measure(pruned), measure(equalized))
    weight = np.float32(perceptron(zeros=0.0).get_layer("hidden").kernel)
    hold(pruned, trained=True)
    kernel = pruned.get_layer("hidden").kernel
    zeros = kernel.numpy() == 0
    assert np.array_equal(kernel.constraint(weight), np.where(zeros, 0, weight)), "nothing is tied"


def attention():
    inputs = keras.Input((6, 8), name="input")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    return keras.Model(inputs, x)


def test_zeros_of_kernels_that_a_rewriting_renames_are_counted_in_all():
    pruned = Prune(sparsity=0.6).rehearsed(Prune(sparsity=0.6).prepare(attention(), 9, None))
    before = measure(pruned)
    samples = tf.data.Dataset.from_tensors((np.ones((2, 6, 8), np.float32), [0, 1]))
    stage = Quantize()
    made = stage.prepare(pruned, 9, samples)
    check_held("quantize", before, measure(stage.finish(made)), scaled=True)
    for variable in kernel_variables(made).values():
        variable.assign(variable + 0.1)
    with pytest.raises(RunError, match="zeros of the layers attention to stay, measured 0"):
        check_held("quantize", before, measure(stage.finish(made)), scaled=True)


def test_values_that_16_bits_made_equal_are_shared_by_no_stage():
    inputs = keras.Input((256,), name="input")
    made = keras.Model(inputs, keras.layers.Dense(256, name="logits")(inputs))
    kernel = made.get_layer("logits").kernel
    values = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float16)
    assert len(np.unique(values)) < 0.5 * values.size
    kernel.assign(values)
    hold(made, trained=True)
    assert kernel.constraint is None


def test_a_constraint_of_the_users_own_comes_before_what_is_held():
    inputs = keras.Input((8,), name="input")
    layer = keras.layers.Dense(8, name="logits", kernel_constraint=keras.constraints.NonNeg())
    model = keras.Model(inputs, layer(inputs))
    hold(model, trained=True)
    assert layer.kernel.constraint is layer.kernel_constraint
    values = np.abs(np.random.default_rng(0).normal(size=(8, 8)))
    layer.kernel.assign(values * (values > 0.5))
    for _ in range(2):
        hold(model, trained=True)
    held = layer.kernel.constraint(layer.kernel - 0.6).numpy()
    assert held.min() == 0 and not held[values <= 0.5].any()


def encoder():
    inputs = keras.Input((6, 8), name="input")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def test_zeros_of_attention_are_counted_beside_a_normalization_that_becomes_a_kernel():
    model = encoder()
    stage = Prune(sparsity=0.5, growth=AtOnce())
    pruned = stage.rehearsed(stage.prepare(model, 10, None))
    examples = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    samples = tf.data.Dataset.from_tensors((examples, 0))
    prepared = Quantize().prepare(pruned, 10, samples)
    check_held("quantize", measure(pruned), measure(prepared), scaled=True)
    for name, kernel in kernel_variables(prepared).items():
        if name.startswith("attention"):
            kernel.assign_add(tf.fill(kernel.shape, 0.1))
    with pytest.raises(RunError, match="zeros of the layers attention to stay, measured 0"):
        check_held("quantize", measure(pruned), measure(prepared), scaled=True)


def test_factors_of_a_normalisation_move_apart():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.LayerNormalization(name="norm")(inputs))
    gamma = np.tile(np.float32([0.5, 1.5]), 4)
    model.get_layer("norm").set_weights([gamma, np.zeros(8, np.float32)])
    examples = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    prepared = Quantize().prepare(model, 10, tf.data.Dataset.from_tensors((examples, 0)))
    hold(prepared, trained=True)
    prepared.compile(keras.optimizers.SGD(0.1), "mse")
    prepared.fit(examples, np.zeros((16, 8)), verbose=0)
    assert len(np.unique(kernel_variables(prepared)["norm/depthwise_kernel"])) > 2


def matrix(layer, size=100, zeros=0, distinct=8):
    return Kernel(
        layer=layer,
        layer_type="Dense",
        inner_type="Dense",
        name="kernel",
        shape=(size, 1),
        zeros=zeros,
        distinct=distinct,
        distinct_total=distinct,
    )


def stored(layer, size=100, zeros=0, distinct=8):
    return Counts(layer, size, zeros, distinct)


VALUES = "distinct values per channel"
LOST = [
    ([matrix("a", zeros=9), matrix("b")], [stored("b", zeros=5), stored("a", zeros=10)], []),
    ([matrix("a", zeros=9)], [stored("a")], [("layer 'a'", "zeros", 9, 0)]),
    ([matrix("a")], [stored("a", distinct=9)], [("layer 'a'", VALUES, 8, 9)]),
    ([matrix("a", distinct=90)], [stored("a", distinct=99)], []),
    # Stored in parts, or under a name that isn't the layer's.
    ([matrix("a", zeros=9)], [stored("a", 50), stored("a", 50, zeros=9)], []),
    ([matrix("a", zeros=9)], [stored("x", zeros=8)], [("the layers a", "zeros", 9, 8)]),
    ([matrix("a", zeros=9)], [stored("x", 50)], []),
]  # fmt: skip


@pytest.mark.parametrize(("had", "has", "lost"), LOST)
def test_what_a_file_has_lost_of_its_model_is_told_by_layer(had, has, lost):
    assert list(lost_on_the_way(had, has)) == lost
