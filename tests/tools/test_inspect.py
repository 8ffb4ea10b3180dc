import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.tools import inspect


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(inputs), name="net")
    kernel = np.resize(np.float32([0, 0, 1, -0.5]), (6, 4))
    kernel[0] = 1
    model.get_layer("logits").set_weights([kernel, np.zeros(4, np.float32)])
    examples = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    content = export.Int8().convert(model, examples)
    artifact = export.Artifact(stage="train", variant="int8", content=content)
    return artifact.write(tmp_path_factory.mktemp("artifacts"))


def test_json(file, capsys):
    assert inspect.main([str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == file.stat().st_size
    assert found["gzip_bytes"] == len(gzip.compress(file.read_bytes(), mtime=0))
    assert (found["inputs"][0]["shape"], found["inputs"][0]["dtype"]) == ([1, 6], "int8")
    assert len(found["outputs"][0]["scales"]) == 1
    assert found["operators"] == [{"type": "FULLY_CONNECTED", "precision": "int8", "count": 1}]
    assert found["float_ops"] == []
    (kernel,) = found["kernels"]
    assert (kernel["name"], kernel["shape"], kernel["size"]) == ("logits", [4, 6], 24)
    assert (kernel["zeros"], kernel["codes"], kernel["codes_total"]) == (10, 2, 3)
    assert found["sparsity"] == 10 / 24


def test_text(file, capsys):
    assert inspect.main([str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes" in out
    assert "stay float: none" in out
    assert "4×6" in out
    assert "2 (3)" in out


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 0.5, 0.9])
def test_truncated_file_is_refused(file, tmp_path, keep):
    content = file.read_bytes()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ConfigError, match=f"^can't read {broken}: it is [^\n]*$"):
        inspect.main([str(broken)])


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.tflite"
    text.write_text("no model at all")
    for path, message in (
        (text, "it is not a TFLite file"),
        (tmp_path / "missing.tflite", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(ConfigError, match=f"can't read {path}: .*{message}"):
            inspect.main([str(path)])


def test_a_reader_that_has_enough_is_no_error(file):
    command = [sys.executable, "-m", "tfopt", "inspect", str(file), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
