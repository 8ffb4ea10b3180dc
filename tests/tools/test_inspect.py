import gzip
import json
import re
import subprocess
import sys

import flatbuffers
import numpy as np
import pytest

from tests.described import description
from tfopt import export
from tfopt.compat import keras, tflite_schema
from tfopt.data import Tokens
from tfopt.errors import ConfigError
from tfopt.tflite import flatbuffer, flatgraph, metadata
from tfopt.tflite.attachment import attach
from tfopt.tflite.metadata_schema import encoded
from tfopt.tools import inspect


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(inputs), name="net")
    kernel = np.resize(np.float32([0, 0, 1, -0.5]), (6, 4))
    kernel[0] = 1
    model.get_layer("logits").set_weights([kernel, np.full(4, 0.5, np.float32)])
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
    assert (found["inputs"][0]["bytes"], found["outputs"][0]["bytes"], kernel["bytes"]) == (
        6,
        4,
        24,
    )
    # Each unit's largest weight is 1.
    assert kernel["scale_least"] == kernel["scale_greatest"] == pytest.approx(1 / 127)
    assert found["signatures"] == ["serving_default(examples) -> logits"]
    assert found["tfopt"] is None and found["metadata"] is None and found["files"] == []
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    weights = by_name["net/logits/MatMul"]
    (bias,) = (tensor for tensor in found["tensors"] if tensor["dtype"] == "int32")
    (given,) = (by_name[end["name"]] for end in found["inputs"])
    assert {name: given[name] for name in found["inputs"][0]} == found["inputs"][0]
    assert (weights["shape"], weights["dtype"], weights["bytes"]) == ([4, 6], "int8", 24)
    assert (weights["axis"], weights["zero_points"]) == (0, [0] * 4)
    assert (bias["shape"], bias["dtype"], bias["bytes"]) == ([4], "int32", 16)
    products = np.float32(weights["scales"]) * given["scales"][0]
    np.testing.assert_allclose(bias["scales"], products, rtol=1e-6)


def test_text(file, capsys):
    assert inspect.main([str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{file.stat().st_size:,} bytes" in out
    assert "stay float: none" in out
    assert "4×6" in out
    assert "2 (3)" in out
    assert "serving_default(examples) -> logits" in out
    tensors = out[out.index("zero points") :]
    (bias,) = (line.split() for line in tensors.splitlines() if "int32" in line)
    assert (bias[1], bias[-1]) == ("4", "16")


def test_long_names_and_scales_of_channels_are_shortened_in_the_text():
    each = inspect._tensor(
        flatgraph.Tensor(
            name="a" * 50 + "b" * 50, shape=(2, 3), dtype="int8", scales=(0.5, 0.25),
            zero_points=(0, 0), axis=1, values=None,
        )
    )  # fmt: skip
    found = {
        **{"bytes": 1, "gzip_bytes": 1, "sparsity": 0, "tfopt": None, "metadata": None},
        **dict.fromkeys(("files", "signatures", "inputs", "outputs", "operators"), []),
        **{"float_ops": [], "kernels": [], "tensors": [each | {"axis": 1}]},
    }
    row = inspect._text(found).splitlines()[-1].split()
    assert row == ["a" * 30 + "…" + "b" * 30, "2×3", "int8", "0.25", "to", "0.5", "0", "1", "6"]


def test_what_the_file_says_of_itself(file, tmp_path, capsys):
    said = description(
        accuracy=0.75,
        shape=(6,),
        class_names=("good\nnews", *map(str, range(11))),
        front_end=Tokens(vocabulary=("a", "b")),
    )
    described = tmp_path / "described.tflite"
    described.write_bytes(metadata.attached(file.read_bytes(), said))
    assert inspect.main([str(described), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tfopt"]["accuracy"] == 0.75 and found["tfopt"]["config_hash"] == "0123456789ab"
    assert found["tfopt"]["front_end"]["vocabulary"] == ["a", "b"]
    assert (
        found["metadata"]["subgraph_metadata"][0]["output_tensor_metadata"][0]["name"] == "logits"
    )
    assert inspect.main([str(described)]) == 0
    out = capsys.readouterr().out
    assert found["files"] == [
        {"name": name, "bytes": len(text.encode())} for name, text in metadata._files(said).items()
    ]
    assert "'good\\nnews', '0'" in out and "and 2 more, all in --json" in out
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines() if "  " in line)
    assert rows["description"] == "train int8, accuracy 75.00% of 8 examples"
    assert rows["made of"] == "Tokens(vocabulary=2 words, all in --json)"
    assert rows["stage, variant"] == "train, int8" and rows["accuracy"] == "75.00% of 8 examples"
    assert rows["min_parser_version"] == "1.0.1" and rows["file vocab.txt"] == "3 bytes"
    assert rows["input examples"] == (
        "Words 6; feature; normalised by mean 0, std 1; see vocab.txt"
    )
    assert rows["output logits"] == "of each class, before softmax; feature; see labels.txt"


def test_metadata_of_others_are_told_as_well(file, tmp_path, capsys):
    standard = {
        "license": "MIT",
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [
                    {
                        "name": "photo",
                        "content": {
                            "content_properties": {
                                "ImageProperties": {
                                    "color_space": 1,
                                    "default_size": {"width": 6, "height": 5},
                                }
                            },
                            "range": {"min": 1, "max": 9},
                        },
                        "stats": {"min": [0.0, 1.0], "max": [2.0, 3.0]},
                    }
                ]
            }
        ],
    }
    path = tmp_path / "others.tflite"
    path.write_bytes(attach(file.read_bytes(), encoded(standard), {"notes.md": "good"}))
    assert inspect.main([str(path)]) == 0
    rows = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert ["license", "MIT"] in rows and ["file notes.md", "4 bytes"] in rows
    meaning = "image color_space=RGB default_size=6×5; of 1 to 9; from 0, 1 to 2, 3"
    assert ["input photo", meaning] in rows


def of_version(content, version):
    model = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
    model.version = version
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_of_a_later_schema(file):
    content = file.read_bytes()
    flatbuffer.read(of_version(content, 3))
    with pytest.raises(ValueError, match="^it is of version 4 of the schema; tfopt reads 3, so "):
        flatbuffer.read(of_version(content, 4))
    with pytest.raises(ValueError, match="^it is of a later schema, TFL4; tfopt reads 3, so look"):
        flatbuffer.read(content.replace(b"TFL3", b"TFL4"))


def test_a_schema_that_isnt_loaded_is_no_damage_of_the_file(file, monkeypatch):
    monkeypatch.setattr(flatbuffer, "tflite_schema", object())
    with pytest.raises(AttributeError, match="ModelT"):
        flatbuffer.read(file.read_bytes())


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
