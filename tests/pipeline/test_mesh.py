"""A mesh gives what one device gives, and each of its devices has its share of the model."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.stages import EMA, Quantize, Stage
from tfopt.stages.spread import why_not

SPLIT = {"embedding", "attention", "dense"}
WITHOUT = "goes on without the mesh, which"


def run(sides):
    process = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.meshed", *sides.split("x")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def one():
    """What one device found."""
    return run("0x0")["stages"]


@pytest.fixture(scope="module")
def hybrid():
    """What 2 x 2 devices found, and 4 x 1 from the last epoch of pruning on."""
    return run("2x2")


def assert_alike(one, other, tolerance):
    for name in ("loss", "val_loss", "accuracy"):
        curves = [[epoch[name] for epoch in found["history"]] for found in (one, other)]
        assert curves[0] == pytest.approx(curves[1], rel=tolerance), name
    for name, kernel in one["kernels"].items():
        np.testing.assert_allclose(kernel, other["kernels"][name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def data_alone():
    """What 4 x 1 devices found."""
    return run("4x1")


def test_data_alone_may_be_split(one, data_alone):
    assert_alike(one["train"], data_alone["stages"]["train"], 1e-5)
    assert all(shares == [1] * 4 for shares in data_alone["shares"].values())


def test_the_model_alone_may_be_split(one):
    model_alone = run("1x4")
    assert_alike(one["train"], model_alone["stages"]["train"], 1e-5)
    for name, shares in model_alone["shares"].items():
        # 10 classes are no multiple of 4.
        assert shares == [1 / 4 if name.split("/")[0] in SPLIT else 1] * 4, name


def test_both_may_be_split_at_once(one, hybrid):
    assert_alike(one["train"], hybrid["stages"]["train"], 1e-5)


def test_a_stopped_run_may_go_on_with_another_mesh(one, hybrid):
    assert hybrid["stages"]["prune"]["mesh"]["batch"] == 4
    assert_alike(one["prune"], hybrid["stages"]["prune"], 1e-5)


def test_each_device_holds_its_share(hybrid):
    whole = {name for name, shares in hybrid["shares"].items() if shares == [1] * 4}
    assert whole == {"conv/kernel"}
    assert all(shares == [0.5] * 4 for n, shares in hybrid["shares"].items() if n not in whole)
    held = hybrid["stages"]["train"]["mesh"]
    assert held["bytes"] / 2 < held["bytes_per_device"] < 0.6 * held["bytes"]


def test_what_a_mesh_has_no_rule_for_goes_on_without_it(data_alone, hybrid):
    assert data_alone["said"] == [f"stage train: {WITHOUT} has no rule for AvgPoolGrad."]
    assert hybrid["said"] == []


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        (Stage(), ""),
        (Stage(average=EMA()), "keeps no average of the weights"),
        (Quantize(), "has no rule for quantization-aware layers"),
    ],
)
def test_what_a_mesh_cannot_train_is_known_before(stage, why):
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    assert why_not(stage, model, [model]) == why
