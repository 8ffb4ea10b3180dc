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


@pytest.fixture(scope="module")
def found():
    """What one device found, and 4 as a mesh of each shape."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.meshed"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1].removeprefix("RESULT "))


def assert_alike(one, other, tolerance):
    for name in ("loss", "val_loss", "accuracy"):
        curves = [[epoch[name] for epoch in found["history"]] for found in (one, other)]
        assert curves[0] == pytest.approx(curves[1], rel=tolerance), name
    for name, kernel in one["kernels"].items():
        np.testing.assert_allclose(kernel, other["kernels"][name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("mesh", ["data", "model", "hybrid"])
def test_the_losses_and_the_weights_are_those_of_one_device(found, mesh):
    assert_alike(found["one"]["train"], found[mesh]["stages"]["train"], 1e-5)


def test_a_stopped_run_may_go_on_with_another_mesh(found):
    pruned = found["hybrid"]["stages"]["prune"]
    assert pruned["mesh"]["batch"] == 4
    assert_alike(found["one"]["prune"], pruned, 1e-5)


def test_each_device_holds_its_share(found):
    assert all(shares == [1] * 4 for shares in found["data"]["shares"].values())
    for name, shares in found["model"]["shares"].items():
        # 10 classes are no multiple of 4.
        assert shares == [1 / 4 if name.split("/")[0] in SPLIT else 1] * 4, name
    hybrid = found["hybrid"]["shares"]
    whole = {name for name, shares in hybrid.items() if shares == [1] * 4}
    assert whole == {"conv/kernel"}
    assert all(shares == [0.5] * 4 for name, shares in hybrid.items() if name not in whole)
    held = found["hybrid"]["stages"]["train"]["mesh"]
    assert held["bytes"] / 2 < held["bytes_per_device"] < 0.6 * held["bytes"]


def test_what_a_mesh_has_no_rule_for_goes_on_without_it(found):
    assert found["said"] == []
    assert found["without_a_rule"] == [f"stage train: {WITHOUT} has no rule for AvgPoolGrad."]


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
