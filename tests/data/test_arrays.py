import re

import numpy as np
import pytest

from tfopt.data import Arrays
from tfopt.errors import ConfigError


@pytest.fixture
def content(arrays):
    (x_train, y_train), (x_test, y_test) = arrays(60), arrays(25, seed=1)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def saved(tmp_path):
    def save(content):
        np.savez_compressed(tmp_path / "data.npz", **content)
        return str(tmp_path / "data.npz")

    return save


def refused(path, message, **fields):
    with pytest.raises(ConfigError, match="^" + re.escape(f"config.data{message}")):
        Arrays(path=path, **fields).load(8)


def test_the_four_arrays(content, saved):
    splits = Arrays(path=saved(content)).load(8)
    assert splits.spec.class_names == ("0", "1", "2") and splits.spec.train_size == 54


def test_class_names_float_values_and_validation_arrays(content, saved, arrays):
    content = {name: v / 255 if name[0] == "x" else v[:, None] for name, v in content.items()}
    more = arrays(10, seed=2)
    content |= {"x_validation": more[0] / 255, "y_validation": more[1]}
    splits = Arrays(path=saved(content), class_names=("a", "b", "c")).load(8)
    assert splits.spec.class_names == ("a", "b", "c") and splits.spec.train_size == 60
    assert all(0.4 < mean < 0.6 for mean in splits.spec.normalisation.mean)


def test_past_the_limit_arrays_stream_from_disk(content, saved, tmp_path):
    path, cache = saved(content), tmp_path / "cache"
    memory = Arrays(path=path).load(8)
    on_disk = Arrays(path=path, memory_limit_mb=0, cache_dir=str(cache)).load(8)
    assert len(list(cache.iterdir())) == 2 and memory.spec == on_disk.spec
    for a, b in zip(memory.train(1).take(9), on_disk.train(1).take(9), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_missing_file_and_array_have_the_nearest_name(content, saved, tmp_path):
    path = saved(content)
    typo = str(tmp_path / "date.npz")
    refused(
        typo,
        f".path: expected an .npz file, received {typo}, which doesn't exist; "
        "did you mean 'data.npz'?",
    )
    content["x_tests"] = content.pop("x_test")
    refused(
        saved(content),
        f".path: expected an array x_test in {path}, received none; did you mean 'x_tests'?",
    )
    del content["y_train"]
    refused(saved(content), f".path: expected an array y_train in {path}, received none; ")


def test_files_that_are_no_archive_or_hold_objects(content, saved, tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nothing")
    refused(str(broken), f".path: expected an .npz file, received {broken}, which can't be read (")
    path = saved(content)
    whole = (tmp_path / "data.npz").read_bytes()
    middle = len(whole) // 3
    (tmp_path / "data.npz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    for limit in (0, 1):
        refused(path, ".path: expected ", memory_limit_mb=limit, cache_dir=str(tmp_path / "cache"))
    content["x_train"] = content["x_train"].astype(object)
    for limit in (0, 1):
        refused(
            saved(content),
            f".path: expected numeric arrays x_train and y_train in {path}, received "
            "unreadable ones (",
            memory_limit_mb=limit,
            cache_dir=str(tmp_path / "cache"),
        )


def test_an_absurd_label_is_a_message_and_not_a_billion_classes(content, saved):
    content["y_train"][0] = 2**40
    refused(
        saved(content),
        ": expected labels from 0 to 59 in the train split, received 1099511627776 at index 0 ",
    )
