from pathlib import Path

import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.data import Spec, from_arrays
from tfopt.facts import kernel_variables, measure
from tfopt.stages import AtOnce, Block, Global, NofM, Polynomial, Prune, Sensitivity
from tfopt.stages.carry_out import carry_out
from tfopt.stages.train import Place, train
from tfopt.testing import check_stage

GROWTHS = [
    Polynomial(),
    Polynomial(begin=0.3, end=1.0),
    Polynomial(begin=0.5, end=0.51, power=1),
    Polynomial(begin=0.99, end=1.0),
    AtOnce(),
    AtOnce(begin=0.5),
    AtOnce(begin=0.99),
]


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 99, 101, 1000, 12345])
def test_the_last_update_of_the_masks_reaches_the_target_within_the_stage(growth, steps):
    # tfmot's step counter is 1 at the first step; its rule takes all steps at once.
    moves, sparsity = growth.over(steps, 0.8)(tf.range(1, steps + 1))
    updates = np.broadcast_to(sparsity, steps)[moves.numpy()]
    assert updates[-1] == pytest.approx(0.8, abs=1e-6)
    assert np.all(np.diff(updates) >= -1e-6)
    assert len(updates) <= 202


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_tfmot_updates_its_masks_by_that_count_of_steps(growth, steps):
    *_, masks = in_training(Prune(sparsity=0.75, growth=growth), steps)
    zeros = [float((mask == 0).mean()) for mask in masks.values()]
    assert zeros == pytest.approx([0.75, 0.75], abs=0.01)


def in_training(stage, steps):
    """Yield the masks after each of `steps` steps, by layer."""
    pruned = stage.prepare(model(), steps, None)
    pruned.compile("sgd")
    (counter,) = stage.callbacks(Path())
    counter.set_model(pruned)
    counter.on_train_begin()
    for _ in range(steps):
        pruned(np.ones((1, 8, 8, 1), np.float32), training=True)
        yield {w.name.split("/")[0]: w.numpy() for w in pruned.weights if "/mask:" in w.name}


def test_two_of_four_grows_with_the_schedule():
    stage = Prune(pattern=NofM(), growth=Polynomial(end=1.0, power=1))
    kept = [masks["masked_logits"] for masks in in_training(stage, 5)]
    groups = np.array([mask.reshape(-1, 4, 3).sum(1) for mask in kept])
    assert set(groups.ravel()) == {2, 4}
    np.testing.assert_allclose((groups == 2).mean((1, 2)), [0.2, 0.4, 0.6, 0.8, 1.0], atol=0.02)


def test_a_convolution_is_pruned_in_blocks():
    stage = Prune(sparsity=0.4, pattern=Block(height=1, width=2), growth=AtOnce())
    masks = [masks["masked_stem"] for masks in in_training(stage, 1)]
    assert set(masks[0].reshape(-1, 2).sum(1)) == {0, 2}


def digits(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(64, 8, 8, 1)).astype(np.float32), (np.arange(64) % 3).astype(np.int32)


INTERRUPTED = [
    {"sparsity": 0.4, "pattern": Block(), "allocation": Sensitivity(batches=2)},
    {"pattern": NofM()},
]


def fitted(folder, epochs, options):
    """Train the rest of `epochs` epochs of one stage that keeps its checkpoints in `folder`."""
    keras.utils.set_random_seed(0)
    splits = from_arrays(
        train=digits(0), test=digits(1), validation=digits(2), class_names=("a", "b", "c"),
        batch_size=16,
    )  # fmt: skip
    # Two epochs long even where only the first is trained, as in a run that was killed.
    stage = Prune(epochs=2, **options)
    prepared = stage.prepare(model(), 8, splits.samples)
    stage.epochs = epochs
    train(stage, prepared, [], splits, Place(workdir=folder, trained=True))
    return prepared.get_weights()


@pytest.mark.parametrize("options", INTERRUPTED, ids=["blocks", "n_of_m"])
def test_a_stage_that_was_interrupted_ends_in_the_same_weights(options, tmp_path):
    whole, first = (
        fitted(tmp_path / name, n, options) for name, n in (("whole", 2), ("killed", 1))
    )
    rest = fitted(tmp_path / "killed", 2, options)
    assert not all(map(np.array_equal, whole, first))
    assert all(map(np.array_equal, whole, rest))


def test_shared_layers_operators_and_nested_models_are_pruned():
    inputs = keras.Input((8, 8, 4), name="input")
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    x = shared(tf.nn.relu(shared(inputs)) * 0.5)
    nested = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(8, 3, name="inner")])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(nested(x))
    made = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    before = [weight.copy() for weight in made.get_weights()]
    stage = Prune(sparsity=0.5, growth=AtOnce(), learning_rate=0.1)
    pruned = check_stage(
        stage, made, spec=Spec(shape=(8, 8, 4), class_names=tuple("abcd"), train_size=16)
    )
    assert {k.layer: k.zeros / k.size for k in measure(pruned).kernels} == dict.fromkeys(
        ("shared", "inner", "logits"), 0.5
    )
    assert all(map(np.array_equal, before, made.get_weights())), "the input is as it was"


def model():
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(4, 3, name="stem")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def words():
    """Return a model of words with every kind of layer that has several kernels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), name="input")
    x = tf.abs(4 * inputs)
    x = keras.layers.Embedding(20, 8, mask_zero=True, name="embedding")(x)
    x = keras.layers.Dense(8, name="mixed")(x)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = keras.layers.SeparableConv1D(8, 3, padding="same", name="separable")(x)
    x = keras.layers.LSTM(6, name="lstm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def test_attention_recurrent_and_separable_kernels_are_pruned_each_by_its_share(splits, tmp_path):
    stage = Prune(sparsity=0.6, allocation=Global(), epochs=2)
    made = carry_out(stage, words(), [], splits, Place(workdir=tmp_path, trained=True))
    kernels = {kernel.key: kernel.zeros / kernel.size for kernel in made.after.kernels}
    assert kernels.pop("separable/depthwise_kernel") == 0
    assert min(kernels.values()) > 0
    assert len({round(share, 2) for share in kernels.values()}) > 5


def test_attention_and_recurrent_kernels_have_two_zeros_in_each_four_inputs():
    stage = Prune(pattern=NofM(), exclude=("embedding", "separable", "logits"))
    kernels = kernel_variables(stage.rehearsed(stage.prepare(words(), 10, None)))
    projections = ("query", "key", "value", "attention_output")
    for name in (*(f"attention/{part}/kernel" for part in projections), "lstm/kernel"):
        zeros = kernels[name].numpy().reshape(2, 4, -1) == 0  # all have 8 inputs
        assert np.all(zeros.sum(1) == 2), name


def test_all_masks_of_a_layer_are_part_of_the_checkpoints(tmp_path):
    stage = Prune(sparsity=0.6)
    pruned, again = stage.prepare(words(), 10, None), stage.prepare(words(), 10, None)
    masks, others = ([w for w in made.weights if "/mask" in w.name] for made in (pruned, again))
    for number, mask in enumerate(masks):
        mask.assign(np.random.default_rng(number).random(mask.shape) < 0.5)
    path = tf.train.Checkpoint(model=pruned).write(str(tmp_path / "state"))
    tf.train.Checkpoint(model=again).read(path).assert_existing_objects_matched()
    assert len(masks) == 10
    assert all(np.array_equal(*pair) for pair in zip(masks, others, strict=True))
