"""The page of the small run, held to its report.json, to `tfopt inspect` and to LiteRT itself."""

import gzip
import re

import numpy as np
import pytest

from tests.page.table import artifacts
from tfopt.benchmark import Setting, side_by_side
from tfopt.compat import litert
from tfopt.data import Digits
from tfopt.tflite.opened import opened
from tfopt.tools.inspect import inspect


@pytest.fixture(scope="module")
def shown(tiny_run):
    return artifacts((tiny_run[1] / "report.html").read_text())


def test_it_has_every_row_of_the_report(tiny_run, shown):
    for row in tiny_run[0]:
        cells = shown[f"{row['stage']}_{row['variant']}"]
        assert cells["accuracy"] == f"{row['accuracy']:.2%}"
        assert cells["agreement"] == f"{row['agreement']:.2%}"
        assert cells["median µs"] == f"{row['latency_median_us']:,.1f}"
    assert len(shown) == len(tiny_run[0])


def test_it_says_of_the_files_what_inspect_says(tiny_run, shown):
    for name, cells in shown.items():
        found = inspect(*opened(tiny_run[1] / "artifacts" / f"{name}.tflite"))
        integers = sum(op["count"] for op in found["operators"] if op["precision"] == "int8")
        assert cells["bytes"] == f"{found['bytes']:,}"
        assert cells["gzipped"] == f"{found['gzip_bytes']:,}"
        assert cells["zeros"] == f"{found['sparsity']:.2%}"
        assert cells["kernels"] == " + ".join(sorted({k["dtype"] for k in found["kernels"]}))
        assert cells["integer ops"].startswith(f"{integers}/")


@pytest.mark.parametrize("name", ["train_float32", "prune_int8", "quantize_int8"])
def test_it_says_of_the_files_what_litert_says(tiny_run, shown, name):
    path = tiny_run[1] / "artifacts" / f"{name}.tflite"
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    right = []
    for images, labels, weights in Digits().load(64).test:
        for image, label in zip(images.numpy()[weights > 0], labels[weights > 0], strict=True):
            scale, zero = into["quantization"]
            values = np.clip(np.round(image / scale) + zero, -128, 127) if scale else image
            interpreter.set_tensor(into["index"], values[None].astype(into["dtype"]))
            interpreter.invoke()
            right.append(interpreter.get_tensor(out["index"]).argmax() == int(label))
    assert shown[name]["accuracy"] == f"{np.mean(right):.2%}"
    assert shown[name]["bytes"] == f"{path.stat().st_size:,}"
    size = len(gzip.compress(path.read_bytes(), mtime=0))
    assert int(shown[name]["gzipped"].replace(",", "")) == pytest.approx(size, rel=0.01)


def test_it_is_whole(tiny_run):
    text = (tiny_run[1] / "report.html").read_text()
    assert len(text.encode()) < 2_000_000
    assert "failed" not in text
    assert text.count("<svg") == 7
    assert "✓ all 6" in text, "zeros, bits of two kinds, agreement, flash and arena"
    assert "tfopt --config=" in text
    for address in re.findall(r'href="(artifacts/[^"]+)"', text):
        assert (tiny_run[1] / address).exists()
    assert "http:" not in text and "https:" not in text


def test_it_says_of_their_latency_what_benchmark_says(tiny_run, shown):
    names = ["train_float32", "quantize_int8"]
    settings = [Setting(tiny_run[1] / "artifacts" / f"{name}.tflite") for name in names]
    found = [float(np.median(each)) for each in side_by_side(settings, runs=500, rounds=5)]
    said = [float(shown[name]["median µs"].replace(",", "")) for name in names]
    # Of µs, on a machine that others have as well.
    for one, other in zip(said, found, strict=True):
        assert other / 3 < one < other * 3
