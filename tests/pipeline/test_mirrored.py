"""Two replicas give what one gives, at the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def both():
    """What one replica and what two found, side by side."""
    script = str(Path(__file__).parent / "mirrored.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, replicas],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for replicas in "12"
    ]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    lines = [output.splitlines()[-1].removeprefix("RESULT ") for output, _ in outputs]
    found = [json.loads(line) for line in lines]
    assert [one["devices"] for one in found] == [1, 2]
    return found


def assert_alike(one, two, kernels, losses):
    for name, kernel in one["kernels"].items():
        other = np.array(two["kernels"][name])
        assert np.abs(kernel - other).max() < kernels, name
        assert np.array_equal(np.equal(kernel, 0), other == 0), f"{name}: other zeros"
    for name in ("loss", "val_loss"):
        found = one["history"][0][name], two["history"][0][name]
        assert found[0] == pytest.approx(found[1], rel=losses), name


# What is left is the order of sums, which decides near ties among prune's weights and among
# quantize's codes.
# BatchNormalization by replica gives 0.06.
@pytest.mark.parametrize(
    ("stage", "tolerance"),
    [
        ("train", 1e-5),
        ("distill", 1e-5),
        ("shrink", 1e-5),
        ("blocks", 1e-3),
        ("one_shot", 1e-3),
        ("two_of_four", 1e-3),
        ("prune", 1e-3),
        ("cluster", 1e-3),
        ("quantize", 1e-2),  # in 8 and in 4 bits
    ],
)
def test_kernels_and_losses_are_equal_by_the_same_arithmetic(both, stage, tolerance):
    one, two = (run["same_kernels"][stage] for run in both)
    assert_alike(one, two, tolerance, tolerance)


def test_the_fused_kernel_of_one_replica_changes_little(both):
    # It corrects the moving variance by n / (n - 1), which only inference sees.
    one, two = (run["as_it_is"]["train"] for run in both)
    assert_alike(one, two, kernels=1e-5, losses=1e-3)


@pytest.mark.parametrize("stage", ["equalize", "correct_bias"])
def test_a_stage_that_only_rewrites_does_so_alike(both, stage):
    one, two = (run["as_it_is"][stage]["kernels"] for run in both)
    for name, kernel in one.items():
        # The variance, which folding puts into the kernels, is by 1 / 64 of a batch greater.
        np.testing.assert_allclose(kernel, two[name], rtol=2e-2, atol=1e-5)


def test_every_range_is_what_all_replicas_saw(both):
    one, two = (run["same_kernels"]["quantize"]["ranges"] for run in both)
    assert len(one) == 2 * 5  # of the input, two convolutions and two Dense
    # A near tie between two codes of 4 bits moves the logits. Ranges by replica are 0.1 apart.
    assert two == {name: pytest.approx(value, rel=5e-3) for name, value in one.items()}
    assert two["input_range/range_high:0"] == one["input_range/range_high:0"]


def test_so_is_every_scale_of_the_exported_file(both):
    one, two = (run["same_kernels"]["quantize"]["exported"] for run in both)
    assert len(one) > 5
    assert two == {name: pytest.approx(scale, rel=5e-3) for name, scale in one.items()}
