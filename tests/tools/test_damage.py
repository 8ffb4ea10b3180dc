"""Damaged files: an answer or one sentence, whatever is wrong with them."""

import json
import os
import re
import resource
import wave
from collections import Counter

import numpy as np
import pytest

from tests.described import description
from tests.tools import damage
from tests.tools.damage import damaged
from tfopt import export, isolated
from tfopt.compat import keras
from tfopt.data import Image
from tfopt.errors import ConfigError, RunError
from tfopt.isolated import Child
from tfopt.tflite import metadata
from tfopt.tools import inspect, predict


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of an int8, a float and a sparse file, and the path of an example."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    # Zeros enough for the sparse form.
    model.set_weights([np.where(abs(w) < 0.25, 0, w) for w in model.get_weights()])
    examples = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    path = tmp_path_factory.mktemp("examples") / "example.npy"
    np.save(path, examples[0])
    variants = export.Int8(), export.Float32(), export.Int8(sparse=True)
    contents = [
        metadata.attached(
            variant.convert(model, examples),
            description(variant=variant.name, shape=(8, 8, 1), front_end=Image()),
        )
        for variant in variants
    ]
    return contents, str(path)


def outcome(child, ask, text, path, *arguments):
    """What became of it; an answer is printed in both ways."""
    try:
        found = child.call(ask, path, *arguments)
    except (ConfigError, RunError) as error:
        said = str(error)
        assert said.endswith(".") and not set(said) & set("\n\r")
        ended = re.search(r"crashed \(.*?\)|takes over \d+ seconds", said)
        return ended[0] if ended else "refused"
    assert json.dumps(found) and text(found)
    return "answered"


# One in 2,000: LiteRT crashes on file 2, the sparse one, for one wrong byte.
KNOWN = Counter({("predict", "crashed (-11)", 2): 1})


@pytest.mark.parametrize(
    ("count", "known"),
    [(100, Counter()), pytest.param(2000, KNOWN, marks=pytest.mark.slow)],
)
def test_a_damaged_file_is_an_answer_or_one_sentence(files, tmp_path, count, known):
    contents, example = files
    asked = {
        "inspect": (inspect.inspected, inspect._text, tmp_path / "damaged.tflite"),
        "predict": (predict.predicted, predict._text, tmp_path / "damaged.tflite", [example], 3),
    }
    found: Counter = Counter()
    with Child(seconds=30) as child:
        for seed in range(count):
            (tmp_path / "damaged.tflite").write_bytes(damaged(contents[seed % 3], seed))
            for tool, arguments in asked.items():
                found[tool, outcome(child, *arguments), seed % 3] += 1
    for tool in asked:
        for became in ("answered", "refused"):
            assert sum(found.pop((tool, became, each), 0) for each in range(3)) > count / 10
    assert found <= known


def test_what_a_file_does_to_the_child_is_one_sentence(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"a")
    with Child() as child:
        first = child.call(damage.pid, path)
        assert first == child.call(damage.pid, path) != os.getpid()
        with pytest.raises(
            RunError, match=r"^.*a.tflite: reading or running it crashed \(-6\); it is damaged,"
        ):
            child.call(damage.crash, path)
        assert child.call(damage.pid, path) != first
        with pytest.raises(RunError, match=r"a.tflite: it can't be read or run \(MemoryError\)\."):
            child.call(damage.fill, path)
        assert child.call(damage.limit, path) > 0
        with pytest.raises(RunError, match=r"a.tflite: the process .* failed \(no such thing\);"):
            child.call(damage.fail, path)
    with (
        Child(seconds=1) as child,
        pytest.raises(RunError, match="a.tflite: reading or running it takes over 1 seconds"),
    ):
        child.call(damage.stall, path)


def test_the_child_finds_the_modules_of_its_parent(tmp_path, monkeypatch):
    (tmp_path / "wave.py").write_text("raise SystemExit('of the user')")
    monkeypatch.chdir(tmp_path)
    with Child(limited=False) as child:
        assert child.call(damage.sounds, tmp_path) == wave.__file__
        assert child.call(damage.limit, tmp_path) == resource.getrlimit(resource.RLIMIT_AS)[0]


def test_a_system_without_such_a_limit(tmp_path, monkeypatch):
    def refused(*_):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refused)
    asked = [True, damage.__name__, "pid", str(tmp_path)]
    assert next(isolated._answers([json.dumps(asked)])) == {"answer": os.getpid()}
