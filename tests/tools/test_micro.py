import json

import numpy as np
import pytest

from tests.answered import answered
from tests.described import description
from tfopt import export
from tfopt.compat import keras
from tfopt.data import Tokens
from tfopt.errors import ConfigError
from tfopt.tflite import metadata
from tfopt.tools.micro import main


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,), name="input")
    x = keras.layers.Dense(32, activation="relu", name="wide")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x), name="net")
    examples = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    path = tmp_path_factory.mktemp("file") / "my-net 1.tflite"
    path.write_bytes(export.Int8().convert(model, examples))
    return path


def test_what_fits_is_told_and_written(file, tmp_path, capsys):
    budgets = "--flash=100000", "--arena=96"
    assert main([str(file), *budgets, f"--c={tmp_path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flash"] == file.stat().st_size
    assert found["arena"]["bytes"] == 64 + 32 and found["refused"] == found["missed"] == []
    assert found["c"] == [str(tmp_path / f"my_net_1_tflite.{suffix}") for suffix in "hc"]
    assert 'include "my_net_1_tflite.h"' in (tmp_path / "my_net_1_tflite.c").read_text()


def test_a_missed_budget_says_by_how_much_and_what_to_shrink(file, capsys):
    assert main([str(file), "--flash=2000", "--arena=90"]) == 1
    text = capsys.readouterr().out
    assert f"flash: {file.stat().st_size - 2000:,} bytes more than 2,000" in text
    assert "the largest kernel is that of 'wide'" in text
    assert "arena: 6 bytes more than 90; most are alive at 'FULLY_CONNECTED wide'" in text


def test_words_that_take_more_than_the_kernels_are_what_to_shrink(file, tmp_path, capsys):
    path, content = tmp_path / "words.tflite", file.read_bytes()
    said = description(
        shape=(64,), front_end=Tokens(vocabulary=tuple(f"word{n}" for n in range(1000)))
    )
    path.write_bytes(metadata.attached(content, said))
    assert main([str(path), "--flash=2000", f"--c={tmp_path}"]) == 1
    text = capsys.readouterr().out
    attached = path.stat().st_size - path.read_bytes().index(b"PK\3\4")
    assert attached > 8000 and f"of them attached files, bytes  {attached:,}".split() == next(
        line.split() for line in text.splitlines() if "of them" in line
    )
    assert f"bytes more than 2,000; {attached:,} are attached files, the names of" in text
    assert f"_len = {path.stat().st_size};" in (tmp_path / "words_tflite.c").read_text()
    path.write_bytes(path.read_bytes().replace(b"word500", b"wird500"))
    with pytest.raises(ConfigError, match=r"can't read .*words.tflite: its metadata are damaged"):
        main([str(path)])


def test_sizes_in_other_words(file, capsys):
    assert main([str(file), "--flash=1k", "--arena=1M"]) == 1
    assert f"flash: {file.stat().st_size - 1024:,} bytes more than 1,024" in capsys.readouterr().out
    for wrong in ("64kb", "0", "-1", "1.5k", "k", ""):
        with pytest.raises(ConfigError, match="--arena: expected bytes, at least 1, as 65536, 64k"):
            main([str(file), f"--arena={wrong}"])


def test_two_files_of_one_name_in_c(file, tmp_path, capsys):
    other = tmp_path / "my_net_1.tflite"
    other.write_bytes(file.read_bytes())
    for _ in range(2):  # a file may be written again
        assert main([str(file), f"--c={tmp_path / 'c'}"]) == 0
    message = r"my_net_1_tflite.c: expected none, or that of 'my_net_1.tflite', received .*my-net 1"
    with pytest.raises(ConfigError, match=message):
        main([str(other), f"--c={tmp_path / 'c'}"])
    capsys.readouterr()


def test_files_whose_names_are_no_names_in_c(file, tmp_path, capsys):
    for stem, name in (("float", "float_tflite"), ("modèle", "mod_le_tflite"), ("8bit", "_8bit_")):
        path = tmp_path / f"{stem}.tflite"
        path.write_bytes(file.read_bytes())
        assert main([str(path), f"--c={tmp_path / 'c'}"]) == 0
        assert list((tmp_path / "c").glob(f"{name}*.h"))
    capsys.readouterr()


@pytest.mark.parametrize("wrong", ["model.c", "taken"])
def test_a_folder_that_is_none(file, tmp_path, wrong):
    (tmp_path / "taken").write_text("mine")
    code, _, errors, _ = answered("micro", str(file), f"--c={tmp_path / wrong}")
    assert code == 2 and errors.startswith("tfopt: --c: expected a folder, received")
    assert (tmp_path / "taken").read_text() == "mine"


def test_bad_input(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("hello, this is text")
    for wrong in (path, tmp_path / "none.tflite"):
        code, _, errors, loaded = answered("micro", str(wrong))
        assert (code, loaded) == (2, "LIGHT")
        assert errors.startswith(f"tfopt: can't read {wrong}") and errors.count("\n") == 1
