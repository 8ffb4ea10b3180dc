import time

import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.data import Augment, Normalisation
from tfopt.data.partition import set_apart
from tfopt.data.rows import gatherer

SAME = Normalisation()


def taken(stream, count):
    batches = list(stream.take(count).as_numpy_iterator())
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_starting_at_an_epoch_is_skipping_the_ones_before_bit_for_bit(load):
    splits = load(augment=Augment(shift=2))
    steps = splits.steps_per_epoch
    resumed = taken(splits.train(3), 2 * steps)
    assert_equal(resumed, taken(splits.train(0).skip(3 * steps), 2 * steps))


def test_an_epoch_holds_every_example_once_with_its_label(load, arrays):
    splits = load(normalisation=SAME)
    assert splits.spec.train_size == 54 and splits.steps_per_epoch == 6
    images, labels = taken(splits.train(0), 6)
    held_out, held_labels, weights = taken(splits.validation, 1)
    assert weights.sum() == 9 and np.count_nonzero(weights) == 6
    real = weights > 0
    everything = np.concatenate([images, held_out[real]])
    assert len(np.unique(everything.reshape(60, -1), axis=0)) == 60
    given = {image.tobytes(): label for image, label in zip(*arrays(60), strict=True)}
    for image, label in zip(everything, [*labels, *held_labels[real]], strict=True):
        assert given[image.astype(np.uint8).tobytes()] == label


def test_rows_beside_the_examples_are_theirs_and_change_nothing(load):
    splits = load()
    examples, labels, weights = taken(splits.in_order, 6)
    assert len(np.unique(examples.reshape(54, -1), axis=0)) == np.count_nonzero(weights) == 54
    numbers, doubled = np.arange(54), 2.0 * np.arange(54)[:, None]
    for epoch in (0, 3):
        streams = splits.train(epoch, numbers, doubled), splits.train(epoch)
        for ((found, rows, others), found_labels), plain in tf.data.Dataset.zip(streams).take(6):
            assert_equal((found, found_labels), plain)
            assert_equal(plain, (examples[rows], labels[rows]))
            np.testing.assert_array_equal(others, doubled[rows])


def test_augmented_examples_have_no_rows(load):
    assert load(augment=Augment(shift=2)).in_order is None


def test_epochs_and_seeds_differ_and_one_seed_repeats_itself(load):
    def epoch(seed, number):
        splits = load(seed=seed, normalisation=SAME, validation=0.1, augment=Augment(shift=1))
        return taken(splits.train(number), 6)[0]

    assert_equal([epoch(0, 0)], [epoch(0, 0)])
    assert not np.array_equal(epoch(0, 0), epoch(0, 1))
    assert not np.array_equal(epoch(0, 0), epoch(1, 0))


def test_orders_of_many_epochs_are_all_different(load):
    splits = load(normalisation=SAME, batch_size=54)
    firsts = taken(splits.train(0), 600)[0].reshape(600, 54, -1)[:, :, 0]
    assert len(np.unique(firsts, axis=0)) == 600


def test_batches_have_static_shapes_and_types(load):
    splits = load()
    examples, labels = splits.train(0).element_spec
    assert (examples.shape, examples.dtype) == ((9, 6, 6, 3), tf.float32)
    assert (labels.shape, labels.dtype) == ((9,), tf.int32)
    for stream in (splits.validation, splits.test):
        assert [part.shape for part in stream.element_spec] == [(9, 6, 6, 3), (9,), (9,)]


def test_the_weighted_mean_of_keras_is_the_mean_over_the_real_rows(load, arrays):
    splits = load(batch_size=8)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    found = model.evaluate(splits.test, verbose=0, return_dict=True)
    images, labels = arrays(25, seed=1)
    logits = model(splits.spec.normalisation(images)).numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(25), labels]
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), rel=1e-6)


def test_the_measured_normalisation_is_of_the_training_split_and_applied(load, arrays):
    splits = load(validation=arrays(10, seed=2))
    images = arrays(60)[0].astype(np.float64)
    normal = splits.spec.normalisation
    np.testing.assert_allclose(normal.mean, images.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(normal.std, images.std(axis=(0, 1, 2)), rtol=1e-5)
    tested = taken(splits.test, 3)[0][:25]
    mean, std = np.float32(normal.mean), np.float32(normal.std)
    np.testing.assert_array_equal(tested, (np.float32(arrays(25, seed=1)[0]) - mean) / std)


def test_a_constant_channel_is_not_divided_by_zero(load, arrays):
    images, labels = arrays(60)
    images[..., 1] = 7
    assert load(train=(images, labels)).spec.normalisation.std[1] == 1


def test_a_mapped_file_gives_the_same_stream_as_memory(load, arrays, tmp_path):
    images, labels = arrays(60)
    np.save(tmp_path / "x.npy", images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one = load(augment=Augment(shift=2))
    other = load(augment=Augment(shift=2), train=(mapped, labels))
    assert one.spec == other.spec
    assert_equal(taken(one.train(1), 12), taken(other.train(1), 12))
    assert_equal(taken(one.validation, 1), taken(other.validation, 1))
    found = gatherer(mapped)(tf.constant([5, 0], tf.int64))
    np.testing.assert_array_equal(found, images[[5, 0]])


def test_tearing_a_stream_down_does_not_wait(load):
    stream = iter(load().train(0))
    started = time.perf_counter()
    while time.perf_counter() - started < 1.0:
        next(stream)
    started = time.perf_counter()
    del stream
    assert time.perf_counter() - started < 0.3


def test_set_apart_takes_the_same_share_of_every_class_and_all_of_none():
    labels = np.repeat([0, 1, 2], [100, 50, 1])
    rest, apart = set_apart(labels, 3, 0.2, seed=0)
    assert sorted([*rest, *apart]) == list(range(151))
    assert np.bincount(labels[apart], minlength=3).tolist() == [20, 10, 0]
    assert not np.array_equal(apart, set_apart(labels, 3, 0.2, seed=1)[1])
    rest, _ = set_apart(np.arange(5), 5, 0.9, seed=0)
    assert len(rest) == 5


def test_features_without_axes_of_an_image_train_too(load, arrays):
    splits = load(train=arrays(60, (4,)), test=arrays(25, (4,), seed=1))
    assert splits.spec.shape == (4,) and len(splits.spec.normalisation.mean) == 4
