import errno
import re

import numpy as np
import pytest

from tfopt.compat import tf
from tfopt.data import Augment, ImageFolder, disk
from tfopt.errors import ConfigError


def source(root, **fields):
    return ImageFolder(
        path=str(root), **{"mean": (0.0,), "std": (1.0,), "validation": 0.25, **fields}
    )


def refused(root, message, **fields):
    with pytest.raises(ConfigError) as caught:
        source(root, **fields).load(2)
    assert str(caught.value) == f"config.data{message}"


def images_of_test(splits):
    return np.concatenate([images for images, _, _ in splits.test.as_numpy_iterator()])


def test_png_pixels_labels_and_spec(folder):
    root, pixels = folder
    splits = source(root).load(2)
    assert splits.spec.class_names == ("a", "b") and splits.spec.shape == (6, 6, 3)
    assert splits.spec.train_size == 6
    paths = sorted(path for path in pixels if "test" in path.parts)
    np.testing.assert_array_equal(images_of_test(splits), [pixels[path] for path in paths])
    labels = np.concatenate([labels for _, labels, _ in splits.test.as_numpy_iterator()])
    assert labels.tolist() == [0, 0, 1, 1]


def test_jpeg_and_grey_and_hidden_files(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / ".DS_Store").write_bytes(b"x")
            for index in range(4):
                image = tf.fill([8, 4, 1], tf.cast(40 * index + (name == "b") * 20, tf.uint8))
                jpeg = tf.io.encode_jpeg(image, format="grayscale", quality=100).numpy()
                (tmp_path / split / name / f"{index}.JPG").write_bytes(jpeg)
    splits = source(tmp_path).load(2)
    assert splits.spec.shape == (8, 4, 1)
    assert images_of_test(splits)[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 20, 60, 100, 140]


def test_a_validation_folder_replaces_the_share(folder):
    root, _ = folder
    (root / "validation").symlink_to(root / "test")
    splits = source(root).load(2)
    assert splits.spec.train_size == 8
    held_out = np.concatenate([x for x, _, _ in splits.validation.as_numpy_iterator()])
    np.testing.assert_array_equal(held_out, images_of_test(splits))


def test_unreadable_and_truncated_images_are_named(folder):
    root, pixels = folder
    path = root / "train" / "b" / "3.png"
    whole = path.read_bytes()
    jpeg = tf.io.encode_jpeg(pixels[path]).numpy()
    for content in (b"not an image", b"", whole[: len(whole) // 2], jpeg[: len(jpeg) * 3 // 4]):
        path.write_bytes(content)
        refused(
            root,
            f".path: expected a readable JPEG or PNG image, received {path}, which is damaged or "
            f"of another format ({len(content)} bytes); replace or remove it.",
        )


def test_an_image_of_another_shape_is_named_and_can_be_resized(folder):
    root, _ = folder
    path = root / "test" / "a" / "2.png"
    path.write_bytes(tf.io.encode_png(np.full((9, 7, 3), 50, np.uint8)).numpy())
    refused(
        root,
        f": expected images of shape (6, 6, 3) as the first one, received (9, 7, 3) in {path}; "
        "set config.data.image_size to resize all.",
    )
    splits = source(root, image_size=(5, 4)).load(2)
    assert splits.spec.shape == (5, 4, 3)
    assert (images_of_test(splits)[1] == 50).all()


def test_missing_folders_have_the_nearest_name(folder):
    root, _ = folder
    typo = root.with_name("imagse")
    refused(
        typo,
        f".path: expected a folder with train and test, received no such folder at {typo}; "
        "did you mean 'images'?",
    )
    (root / "test").rename(root / "tests")
    refused(
        root,
        f".path: expected a folder per class in it, received no such folder at {root}/test; "
        "did you mean 'tests'?",
    )


def test_class_folders_must_be_the_same(folder):
    root, _ = folder
    (root / "test" / "b").rename(root / "test" / "c")
    refused(
        root,
        f".path: expected the 2 class folders of train in {root}/test, received a folder less: b; "
        "make the folders the same.",
    )
    (root / "test" / "b").mkdir()
    refused(
        root,
        f".path: expected the 2 class folders of train in {root}/test, received a folder more: c; "
        "make the folders the same.",
    )


def test_empty_folders_and_foreign_files(folder):
    root, _ = folder
    foreign = root / "train" / "a" / "notes.txt"
    foreign.write_text("x")
    refused(
        root,
        f".path: expected only .jpg, .jpeg, .png files, received {foreign}; remove or convert it.",
    )
    foreign.unlink()
    for path in (root / "test" / "a").iterdir():
        path.unlink()
    refused(
        root,
        ": expected examples of all 2 classes in the test split, received none of 1 ('a'); "
        "add examples or leave the class out.",
    )
    for path in (root / "test" / "b").iterdir():
        path.unlink()
    refused(root, f".path: expected images in {root}/test/<class>, received none; add some.")


def test_past_the_limit_the_stream_comes_from_disk_and_is_the_same(folder, tmp_path):
    root, _ = folder
    cache = tmp_path / "cache"
    fields = {"augment": Augment(shift=2), "mean": None, "std": None}
    memory = source(root, **fields).load(3)
    on_disk = source(root, **fields, memory_limit_mb=0, cache_dir=str(cache)).load(3)
    assert memory.spec == on_disk.spec
    for split in ("train", "validation", "test"):
        one, other = getattr(memory, split), getattr(on_disk, split)
        one, other = (one(2), other(2)) if split == "train" else (one, other)
        for a, b in zip(one.take(6), other.take(6), strict=True):
            for first, second in zip(a, b, strict=True):
                np.testing.assert_array_equal(first, second)
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(files) == 2 and all(path.suffix == ".npy" for path in files)
    source(root, memory_limit_mb=0, cache_dir=str(cache)).load(3)
    assert files == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    source(root, memory_limit_mb=0, cache_dir=str(cache), image_size=(4, 4)).load(3)
    assert len(list(cache.iterdir())) == 4


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, tmp_path, monkeypatch):
    root, _ = folder
    cache = tmp_path / "cache"

    class Full:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = disk.os.fdopen
    monkeypatch.setattr(disk.os, "fdopen", lambda handle, mode: Full(opened(handle, mode)))
    refused(
        root,
        f".cache_dir: expected room for 0 MB of decoded examples in {cache}, received No space "
        "left on device; free some or set config.data.cache_dir to another disk.",
        memory_limit_mb=0,
        cache_dir=str(cache),
    )
    assert not list(cache.iterdir())


def test_a_broken_image_leaves_nothing_on_disk(folder, tmp_path):
    root, _ = folder
    (root / "train" / "b" / "3.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=re.escape("3.png")):
        source(root, memory_limit_mb=0, cache_dir=str(tmp_path / "cache")).load(2)
    assert not list((tmp_path / "cache").iterdir())
