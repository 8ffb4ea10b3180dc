import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras, tf
from tfopt.errors import ConfigError, RunError
from tfopt.facts import measure
from tfopt.stages import AtOnce, Cluster, Last, Linear, Prune, Quantize, Stage, Teacher
from tfopt.stages.hold import check_held
from tfopt.testing import check_stage
from tfopt.tflite import flatbuffer

IMAGES = np.random.default_rng(0).normal(2, 3, size=(16, 8, 8, 1)).astype(np.float32)
SAMPLES = tf.data.Dataset.from_tensors((IMAGES, np.zeros(16)))


def model():
    """Convolutions of 3x3, 1x1 and depthwise, and a matrix."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="conv_bn")(x)
    x = keras.layers.ReLU(name="conv_relu")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Conv2D(24, 1, name="pointwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("per_channel", [False, True])
def test_training_moves_the_values_and_no_weight_from_one_to_another(per_channel, epochs):
    stage = Cluster(clusters=4, per_channel=per_channel, epochs=epochs, learning_rate=0.01)
    given = model()
    weights = given.get_weights()
    prepared = stage.prepare(given, 10, SAMPLES)
    before = prepared.get_layer("pointwise").kernel.numpy()
    assert all(map(np.array_equal, weights, given.get_weights())), "the model that it was given"
    made = check_stage(stage, given)
    after = made.get_layer("pointwise").kernel.numpy()
    assert np.array_equal(before, after) == (epochs == 0)
    places = np.broadcast_to(np.arange(24), before.shape) if per_channel else np.zeros_like(before)
    pairs = {*zip(places.ravel(), before.ravel(), after.ravel(), strict=True)}
    assert len(pairs) == (4 * 24 if per_channel else 4)


@pytest.mark.parametrize("later", [None, Stage(name="fine", epochs=2, learning_rate=0.01)])
def test_a_kernel_of_one_weight_a_channel_keeps_its_values(later):
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(16, 1, activation="relu", name="gray")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    given = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    made = check_stage(Cluster(clusters=4, epochs=0 if later else 2, learning_rate=0.01), given)
    made = check_stage(later, made) if later else made
    assert {kernel.layer: kernel.distinct_total for kernel in measure(made).kernels}["gray"] == 4


@pytest.fixture(scope="module")
def sparse_and_clustered():
    pruned = check_stage(Prune(sparsity=0.5, growth=AtOnce(), teacher=Teacher()), model())
    return check_stage(Cluster(clusters=8, learning_rate=0.01, teacher=Teacher()), pruned)


@pytest.mark.parametrize("stage", [Quantize(epochs=2, teacher=Teacher()), None])
def test_zeros_and_codes_of_every_kind_of_kernel_arrive_in_the_file(stage, sparse_and_clustered):
    made = check_stage(stage, sparse_and_clustered) if stage else sparse_and_clustered
    zeros = {kernel.layer: kernel.zeros for kernel in measure(made).kernels}
    assert zeros["pointwise"] > 190
    stored = flatbuffer.read(export.Int8().convert(made, IMAGES)).kernels()
    assert len(stored) == 4
    for kernel, there in zip(stored, zeros.values(), strict=True):
        assert kernel.dtype == "int8"
        assert kernel.codes <= 8, kernel
        assert kernel.zeros >= there, kernel


def test_pruning_afterwards_adds_zero_to_the_values_and_shrinks_none():
    clustered = Cluster(clusters=8, epochs=0).prepare(model(), 0, SAMPLES)
    before = clustered.get_layer("pointwise").kernel.numpy()
    pruned = check_stage(Prune(epochs=3, sparsity=0.5, growth=AtOnce()), clustered)
    after = pruned.get_layer("pointwise").kernel.numpy()
    assert len(np.unique(after)) <= 9
    assert np.allclose(after, before * (after != 0), atol=0.02)


def test_small_kernels_and_excluded_layers_are_left():
    made = check_stage(Cluster(clusters=50, exclude=(Last(),), epochs=0), model())
    distinct = {kernel.layer: kernel.distinct_total for kernel in measure(made).kernels}
    assert distinct == {"conv": 50, "depthwise": 50, "pointwise": 50, "logits": 96}
    made = check_stage(Cluster(clusters=5, per_channel=True, epochs=0), model())
    distinct = {kernel.layer: kernel.distinct for kernel in measure(made).kernels}
    assert distinct == {"conv": 9, "depthwise": 9, "pointwise": 5, "logits": 5}


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Cluster(clusters=300), "for each of 300 clusters, received 4 kernels of at most 384"),
        (
            Cluster(clusters=13, per_channel=True),
            "of 13 clusters, .* of at most 24",
        ),
        (Cluster(exclude=("*",)), "shorten exclude"),
        (Cluster(exclude=("pointwize",)), "received 'pointwize'; did you mean 'pointwise'"),
    ],
)
def test_what_is_impossible_is_refused_before_training(stage, message):
    with pytest.raises(ConfigError, match=message):
        stage.prepare(model(), 10, None)


def test_check_raises_where_a_kernel_has_more_values_than_clusters():
    facts = measure(Cluster(clusters=8, initialization=Linear()).prepare(model(), 0, None))
    Cluster(clusters=8).check(facts, facts)
    with pytest.raises(
        RunError, match="at most 4 values in the kernel of layer 'conv', measured 8"
    ):
        Cluster(clusters=4).check(facts, facts)


def test_a_transposed_convolution_keeps_its_codes_through_a_normalization_that_is_folded():
    inputs = keras.Input((4, 4, 3), name="input")
    x = keras.layers.Conv2DTranspose(6, 3, use_bias=False, name="up")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    rng = np.random.default_rng(0)
    model.get_layer("bn").set_weights(list(rng.uniform(0.5, 2, (4, 6))))
    examples = rng.normal(size=(8, 4, 4, 3)).astype(np.float32)
    samples = tf.data.Dataset.from_tensors((examples, 0))
    shared = Cluster(clusters=4, per_channel=True, epochs=0).prepare(model, 0, samples)
    (up, _) = measure(shared).kernels
    assert (up.channels, up.distinct) == (6, 4) and up.distinct_total > 4
    stage = Quantize()
    finished = stage.finish(stage.prepare(shared, 0, samples))
    check_held("quantize", measure(shared), measure(finished), scaled=True)
    assert measure(finished).kernels[0].distinct <= 4
