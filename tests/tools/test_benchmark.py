import json

import numpy as np
import pytest

from tests.answered import answered
from tfopt import benchmark
from tfopt.tools.benchmark import main


def test_what_is_measured(files, capsys):
    names = [str(files / name) for name in ("small.tflite", "large.tflite")]
    options = ["--threads=1,2", "--xnnpack=both", "--runs=40", "--rounds=4", "--json"]
    assert main([*names, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["latency"]) == 2 * 2 * 2
    for small, large in zip(found["latency"][::2], found["latency"][1::2], strict=True):
        assert [small["file"], large["file"]] == names
        assert (small["threads"], small["xnnpack"]) == (large["threads"], large["xnnpack"])
        assert small["ratio"] == [1, 1, 1] and 1 < large["ratio"][1] <= large["ratio"][0]
        assert 0 < large["median_us"] <= large["p90_us"] <= large["p99_us"]
    small, large, *off = found["cold"]
    assert [each["xnnpack"] for each in off] == [False] * 2 and small["xnnpack"]
    assert found["environment"]["cpus"]
    assert large["bytes"] > 4 * 256 * 2048 > small["bytes"]
    assert large["memory_bytes"] > small["memory_bytes"] > 0
    assert large["load_us"] > 0 and large["first_us"] > 0


def test_files_take_turns(files, monkeypatch):
    class Recording:
        def __init__(self, setting):
            self.name = setting.path.stem

        def invoke(self):
            made.append(self.name)

    made: list[str] = []
    monkeypatch.setattr(benchmark, "_warm", Recording)
    settings = [benchmark.Setting(files / f"{name}.tflite") for name in ("small", "large")]
    shapes = [found.shape for found in benchmark.side_by_side(settings, runs=60, rounds=20)]
    assert shapes == [(20, 3)] * 2
    turn = benchmark._FIRST + 3
    rounds = [made[at : at + 2 * turn] for at in range(0, len(made), 2 * turn)]
    orders = {tuple(names[::turn]) for names in rounds}
    assert all(len(set(names[:turn])) == len(set(names[turn:])) == 1 for names in rounds)
    assert orders == {("small", "large"), ("large", "small")}


def test_the_ratio_is_that_of_one_round():
    reference = np.outer([1.0, 2.0, 4.0], [1.0, 1.0, 9.0])  # the machine, slower and slower
    found = benchmark.figures(np.array([[2.0], [3.0], [2.0]]) * reference, reference)
    assert found["ratio"] == [2, 2, 3]
    assert found["median_us"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.tflite"], "expected .tflite files, received nowhere.tflite, which is no file."),
        ([__file__], "can't read " + __file__ + ": it is not a TFLite file"),
        (
            ["FILE", "--threads=0"],
            "--threads: expected numbers of at least 1 as in 1,2,4, re",
        ),
        (["FILE", "--rounds=0"], "--rounds: expected at least 1, received 0."),
        (["FILE", "--runs=5"], "expected at least one in each of 10 rounds, received 5."),
    ],
)
def test_bad_input(files, arguments, message):
    arguments = [str(files / "small.tflite") if each == "FILE" else each for each in arguments]
    code, _, errors, loaded = answered("benchmark", *arguments)
    assert (code, loaded) == (2, "LIGHT")
    assert message in errors and errors.count("\n") == 1


def test_what_litert_cant_run_is_named(files, tmp_path):
    code, output, errors, loaded = answered("benchmark", str(files / "custom.tflite"))
    assert (code, output, loaded) == (1, "", "LIGHT")
    assert "custom.tflite: LiteRT can't load it" in errors and "Erfinv" in errors
    assert "Traceback" not in errors and errors.count("tfopt: ") == 1
    path = tmp_path / "cut.tflite"
    path.write_bytes((files / "large.tflite").read_bytes()[:999])
    code, _, errors, _ = answered("benchmark", str(path))
    assert code == 1 and f"{path}: LiteRT can't load it" in errors
