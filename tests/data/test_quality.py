import re

import numpy as np
import pytest

from tfopt.config import Experiment
from tfopt.data import Digits, quality
from tfopt.errors import ConfigError


def refused(load, message, **changes):
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    assert str(caught.value) == f"config.{message}"


def test_batch_larger_than_the_train_split(load):
    refused(
        load,
        "batch_size: expected at most the 54 examples of the train split, received 55; "
        "make it smaller.",
        batch_size=55,
    )
    assert load(batch_size=54).steps_per_epoch == 1


@pytest.mark.parametrize("label", [3, -1])
def test_label_out_of_range(load, arrays, label):
    images, labels = arrays(25)
    labels[7] = label
    refused(
        load,
        f"data: expected labels from 0 to 2 in the test split, received {label} at index 7 "
        "(1 such labels); correct the labels or name all classes.",
        test=(images, labels),
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_class_missing(load, arrays, split):
    images, labels = arrays(60)
    refused(
        load,
        f"data: expected examples of all 3 classes in the {split} split, received none of 1 "
        "('b'); add examples or leave the class out.",
        **{split: (images, np.where(labels == 1, 0, labels))},
    )


def test_validation_may_miss_a_class(load, arrays):
    images, labels = arrays(10, seed=5)
    assert load(validation=(images, labels * 0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(load, arrays, value):
    train, test = (arrays(n)[0].astype(np.float32) for n in (60, 25))
    train[41, 2, 3, 1] = value
    refused(
        load,
        f"data: expected finite values in the train split, received {value} in example 41; "
        "remove or repair it.",
        train=(train, arrays(60)[1]),
        test=(test, arrays(25)[1]),
    )


def test_whole_numbers_are_taken_as_far_as_float32_has_them(load, arrays):
    train, test = (arrays(n)[0].astype(np.int64) for n in (60, 25))
    given = {"train": (train, arrays(60)[1]), "test": (test, arrays(25)[1])}
    assert load(**given).spec.train_size == 54
    test[3, 0, 0, 0] = 2**24 + 1
    refused(
        load,
        "data: expected whole numbers up to 16,777,216 in size in the test split, received "
        "16777217 in example 3; remove or repair it.",
        **given,
    )


def test_empty_splits(load, arrays):
    none = arrays(0)
    for split in ("train", "test", "validation"):
        refused(
            load,
            f"data: expected examples in the {split} split, received none; "
            f"provide some for {split}.",
            **{split: none},
        )
    refused(
        load,
        "data.validation: expected a share that gives at least one example, received one that "
        "gives none of the 60; make it larger.",
        validation=0.001,
    )


def test_arrays_that_do_not_fit_each_other(load, arrays):
    images, labels = arrays(60)
    refused(
        load,
        "data: expected one label for each of the 60 examples in the train split, received "
        "labels of shape (59,); make them equally many.",
        train=(images, labels[1:]),
    )
    refused(
        load,
        "data: expected uint8 examples of shape (6, 6, 3) as in the train split, received uint8 "
        "of shape (6, 5, 3) in the test split; make them alike.",
        test=arrays(25, (6, 5, 3)),
    )
    refused(
        load,
        "data: expected examples of shape (n, ...) in the train split, received an array of "
        "shape (60,); give every example at least one axis.",
        train=(labels.astype(np.uint8), labels),
    )


def test_types_that_are_not_taken(load, arrays):
    images, labels = arrays(60)
    refused(
        load,
        "data: expected whole numbers or float values in the train split, received bool; "
        "convert them to float32.",
        train=(images > 0, labels),
    )
    refused(
        load,
        "data: expected whole numbers as labels in the train split, received float64; "
        "convert them to int32.",
        train=(images, labels.astype(float)),
    )


def test_normalisation_of_another_number_of_channels():
    with pytest.raises(
        ConfigError,
        match=re.escape(
            "config.data.mean: expected 1 number or one for each of the 1 channels, received 3."
        ),
    ):
        Digits(mean=(1, 2, 3), std=(1, 2, 3)).load(32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (1.0,)}, "std: expected numbers, since the other one is given, received None."),
        ({"mean": (1.0,), "std": (0.0,)}, "std: expected numbers above 0, received (0.0,)."),
        ({"validation": 0.0}, "validation: expected a number above 0 and below 1, received 0.0."),
    ],
)
def test_fields_that_are_impossible(fields, message):
    experiment = Experiment(name="x", data=Digits(**fields), model=len, stages=[])
    with pytest.raises(ConfigError, match=re.escape(f"config.data.{message}")):
        experiment.validate()


def test_images_in_both_train_and_test_are_counted_in_a_warning(load, arrays, monkeypatch):
    warned = []
    monkeypatch.setattr(quality._LOG, "warning", lambda text, *args: warned.append(text % args))
    load()
    assert not warned
    images, labels = arrays(25, seed=1)
    images[[3, 8]] = arrays(60)[0][[40, 0]]
    load(test=(images, labels))
    assert warned == [
        "2 of the 25 test examples also stand in the training data, which makes the test "
        "accuracy look too good."
    ]
