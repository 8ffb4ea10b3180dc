"""Two replicas give what one gives, at the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def trained(replicas):
    script = Path(__file__).parent / "mirrored.py"
    result = subprocess.run(
        [sys.executable, script, str(replicas)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    line = next(line for line in result.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.fixture(scope="module")
def both():
    return trained(1), trained(2)


# What is left is the order of sums, amplified by the steps that follow, and in quantize the
# range of the input, which tfmot tracks per replica. BatchNormalization by replica gives 0.06.
@pytest.mark.parametrize(
    ("stage", "tolerance"), [("train", 1e-3), ("prune", 5e-3), ("quantize", 2e-2)]
)
def test_kernels_and_losses_are_equal(both, stage, tolerance):
    one, two = (run[stage] for run in both)
    for name, kernel in one["kernels"].items():
        other = np.array(two["kernels"][name])
        assert np.abs(kernel - other).max() < tolerance, name
        assert np.array_equal(np.equal(kernel, 0), other == 0), f"{name}: other zeros"
    for name in ("loss", "val_loss"):
        found = one["history"][0][name], two["history"][0][name]
        assert found[0] == pytest.approx(found[1], rel=tolerance), name
