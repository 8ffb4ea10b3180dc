import numpy as np
import pytest

from tfopt.compat import tf
from tfopt.data import Augment, Normalisation
from tfopt.errors import ConfigError


def changed(images, seed=0, **fields):
    return Augment(**fields)(tf.constant(images), tf.constant([3, seed], tf.int64)).numpy()


def shifted(image, down, right, reach):
    padded = np.pad(image, [(reach, reach), (reach, reach), (0, 0)])
    height, width = image.shape[:2]
    return padded[down : down + height, right : right + width]


def test_every_image_is_a_zero_padded_crop_of_its_own_draw(arrays):
    images = arrays(64, (7, 5, 2))[0]
    draws = []
    for image, found in zip(images, changed(images, shift=2, flip=False), strict=True):
        fits = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if np.array_equal(shifted(image, down, right, 2), found)
        ]
        assert len(fits) == 1
        draws += fits
    assert len(set(draws)) > 15
    assert {down for down, _ in draws} == {right for _, right in draws} == set(range(5))


def test_about_half_of_the_images_are_mirrored_exactly(arrays):
    images = arrays(200)[0]
    mirrored = 0
    for image, found in zip(images, changed(images, shift=0), strict=True):
        is_mirrored = np.array_equal(found, image[:, ::-1])
        assert is_mirrored or np.array_equal(found, image)
        mirrored += is_mirrored
    assert 70 < mirrored < 130


def test_a_flip_comes_before_the_shift(arrays):
    images = np.repeat(arrays(1, (5, 5, 1))[0], 50, axis=0)
    sides = [
        shifted(image, down, right, 1)
        for image in (images[0], images[0][:, ::-1])
        for down in range(3)
        for right in range(3)
    ]
    for found in changed(images, shift=1):
        assert any(np.array_equal(found, side) for side in sides)


def test_the_seed_alone_decides(arrays):
    images = arrays(20)[0]
    assert np.array_equal(changed(images), changed(images))
    assert not np.array_equal(changed(images), changed(images, seed=1))


def test_nothing_to_do_is_the_identity_and_floats_are_kept(arrays):
    images = arrays(20)[0].astype(np.float32)
    assert np.array_equal(changed(images, flip=False, shift=0), images)


def test_two_steps_draw_differently_for_one_image(load, arrays):
    images, labels = np.repeat(arrays(1)[0], 60, axis=0), np.arange(60) % 3
    splits = load(train=(images, labels), augment=Augment(shift=2), normalisation=Normalisation())
    first, second = (batch for batch, _ in splits.train(0).take(2).as_numpy_iterator())
    assert not np.array_equal(first, second)
    assert len(np.unique(first.reshape(9, -1), axis=0)) > 4


def test_any_function_of_examples_and_seed_will_do(load):
    splits = load(augment=lambda images, seed: images * 0, normalisation=Normalisation())
    assert not next(iter(splits.train(0)))[0].numpy().any()
    assert next(iter(splits.test))[0].numpy().any()


def test_augment_that_does_not_fit_the_examples(load, arrays):
    with pytest.raises(
        ConfigError,
        match=r"config\.data\.augment\.shift: expected less than the 6 "
        r"pixels of an image's shorter side, received 6\.",
    ):
        load(augment=Augment(shift=6))
    with pytest.raises(
        ConfigError,
        match=r"config\.data\.augment: expected None, for examples of "
        r"shape \(4,\) are not images, received Augment\.",
    ):
        load(train=arrays(60, (4,)), test=arrays(25, (4,), seed=1), augment=Augment())
