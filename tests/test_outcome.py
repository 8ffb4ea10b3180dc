import numpy as np
import pytest

from tests.test_report import row
from tfopt import outcome
from tfopt.answers import Answers
from tfopt.config import Experiment
from tfopt.data import Digits, Tokens
from tfopt.loggers import WandB
from tfopt.models import MLP
from tfopt.spec import plain
from tfopt.stages import Prune, Stage, Teacher


class Recording:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *values: self.told.append((name, *values))

    def of(self, name):
        return [values for method, *values in self.told if method == name]


ROWS = [
    row("train", "float32", accuracy=0.98, gzip_bytes=900),
    row("prune", "int8", accuracy=0.975, gzip_bytes=300),
    row("prune", "dynamic", accuracy=0.96, gzip_bytes=200),
]


def test_what_is_shown_of_the_artifacts(tmp_path):
    logits = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    Answers(logits, np.array([0, 1, 2])).write(tmp_path / "prune", "int8")
    logger = Recording()
    outcome.log(logger, ROWS, ROWS[1], tmp_path, ("a", "b", "c"))
    *of_stages, (run, best) = logger.of("figures")
    assert [stage for stage, _ in of_stages] == ["train", "prune", "prune"]
    assert of_stages[1][1]["artifact_int8/gzip_bytes"] == 300
    assert of_stages[1][1]["noise_int8/conv"] == 11.25
    assert run == "" and best["best/accuracy"] == 0.975 and best["best/gzip_bytes"] == 300
    *noises, (name, text) = logger.of("text")
    assert [name for name, _ in noises] == [
        "noise/train_float32",
        "noise/prune_int8",
        "noise/prune_dynamic",
    ]
    assert noises[1][1].endswith("1. `conv`: 11.2 dB of its own, 9.0 in all. Equalize()")
    lines = text.splitlines()
    assert name == "artifacts" and set(lines[1]) == set("|:-")
    assert lines[3].startswith("| prune_int8 ") and lines[-1] == "The best: prune_int8."
    ((curves,),) = logger.of("pr_curves")
    assert list(curves) == ["pr/a", "pr/b", "pr/c"]
    is_one, scores = curves["pr/b"]
    assert is_one.tolist() == [False, True, False]
    assert scores == pytest.approx([0.2, 0.3, 0.1])


def test_of_many_classes_the_worst_have_curves(tmp_path):
    labels = np.arange(100).repeat(2)
    logits = np.eye(100)[labels]
    logits[::2][70:] = 0  # the first of both examples of 30 classes
    logits[::2][70:, 0] = 1
    logits[-20:] = np.eye(100)[0]  # and both of 10
    Answers(logits, labels).write(tmp_path / "prune", "int8")
    logger = Recording()
    outcome.log(logger, ROWS, ROWS[1], tmp_path, tuple(map(str, range(100))))
    ((curves,),) = logger.of("pr_curves")
    names = [int(name.removeprefix("pr/")) for name in curves]
    assert len(names) == 20 and names == sorted(names)
    assert set(names) >= set(range(90, 100)) and min(names) >= 70


def test_what_was_asked_is_named_as_on_the_command_line():
    stages = [Stage(), Prune(sparsity=0.75, teacher=Teacher(), exclude=("a", "b"))]
    loggers = [WandB(project="x")]
    asked = Experiment(
        name="x", data=Digits(), model=MLP(), stages=stages, loggers=loggers
    ).to_json()
    found = outcome.flat(asked)
    assert found["stages[1]"] == "Prune" and found["stages[1].sparsity"] == 0.75
    assert found["stages[1].exclude"] == "a, b" and found["stages[0].teacher"] == "None"
    assert found["stages[1].teacher.stage"] == "train" and found["data"] == "Digits"
    assert found["deterministic"] is False and found["batch_size"] == 128
    assert not [n for n in found if n.startswith(("loggers", "profile", "source", "type"))]
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())


def test_long_lists_are_cut():
    front_end = Tokens(vocabulary=tuple(f"word{n}" for n in range(100_000)))
    found = outcome.flat({"data": {"type": "my.Words", "front_end": plain(front_end)}})
    shown = found["data.front_end.vocabulary"].split(", ")
    assert shown == [*(f"word{n}" for n in range(50)), "… and 99,950 more"]
    assert outcome.flat({"filters": [8] * 50})["filters"] == ", ".join(["8"] * 50)
