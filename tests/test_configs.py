"""Every shipped config is valid, and keeps what its docstring says."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tfopt.command_line import parse
from tfopt.compat import litert, tf
from tfopt.config_file import shipped_configs

NEEDED = {"image_folder": [f"--config.data.path={Path(__file__).parent}"]}


def tfopt(*arguments):
    command = [sys.executable, "-m", "tfopt", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def report_of(workdir):
    return json.loads((workdir / "report.json").read_text())


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_is_valid_and_says_its_command_time_and_result(name):
    experiment, workdir = parse([f"--config={name}", *NEEDED.get(name, [])])
    assert (experiment.name, workdir) == (name, Path("runs", name).absolute())
    text = shipped_configs()[name].read_text().split('"""')[1]
    assert all(word in text for word in (f"tfopt --config={name}", "Time: ", "Result: "))


@pytest.mark.slow
def test_digits_keeps_its_band(tmp_path):
    tfopt("--config=digits", f"--workdir={tmp_path / 'run'}")
    rows = {f"{row['stage']}_{row['variant']}": row for row in report_of(tmp_path / "run")["rows"]}
    assert rows["train_float32"]["accuracy"] > 0.97
    assert rows["quantize_int8"]["accuracy"] > rows["train_float32"]["accuracy"] - 0.01
    assert rows["quantize_int8"]["sparsity"] > 0.79
    assert rows["quantize_int8"]["gzip_bytes"] < rows["train_float32"]["gzip_bytes"] / 8


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("TFOPT_DATA" not in os.environ, reason="TFOPT_DATA names no folder")
def test_image_folder_keeps_its_band_and_its_report_is_true(tmp_path):
    with tarfile.open(Path(os.environ["TFOPT_DATA"]) / "cifar10-jpeg.tar") as archive:
        archive.extractall(tmp_path / "cifar", filter="data")
    data, workdir = tmp_path / "cifar", tmp_path / "run"
    tfopt("--config=image_folder", f"--config.data.path={data}", f"--workdir={workdir}")
    report = report_of(workdir)
    images, labels = raw_test_split(data / "test", report["data"])
    for row in report["rows"]:
        content = (workdir / "artifacts" / f"{row['stage']}_{row['variant']}.tflite").read_bytes()
        assert row["accuracy"] == pytest.approx(accuracy(content, images, labels), abs=1e-9)
        assert (row["bytes"], row["gzip_bytes"]) == (len(content), len(gzip.compress(content, 9)))
    rows = {f"{row['stage']}_{row['variant']}": row for row in report["rows"]}
    assert rows["quantize_int8"]["accuracy"] > 0.6
    assert rows["quantize_int8"]["accuracy"] > rows["train_float32"]["accuracy"] - 0.03
    assert 0.75 < rows["quantize_int8"]["sparsity"] < 0.8


def raw_test_split(folder, data):
    images, labels = [], []
    for label, name in enumerate(data["class_names"]):
        for path in sorted((folder / name).iterdir()):
            images.append(tf.io.decode_jpeg(path.read_bytes()).numpy())
            labels.append(label)
    mean, std = (np.float32(data["normalisation"][key]) for key in ("mean", "std"))
    return (np.stack(images).astype(np.float32) - mean) / std, np.array(labels)


def accuracy(content, images, labels):
    interpreter = litert.Interpreter(model_content=content)
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], [500, *images.shape[1:]])
    interpreter.allocate_tensors()
    scale, zero = entry["quantization"]
    found = []
    for start in range(0, len(images), 500):
        batch = images[start : start + 500]
        if scale:
            batch = np.clip(np.round(batch / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(entry["index"], batch)
        interpreter.invoke()
        found.append(interpreter.get_tensor(exit_["index"]).argmax(-1))
    return float(np.mean(np.concatenate(found) == labels))
