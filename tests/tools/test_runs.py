import json

import pytest

from tests.answered import answered
from tfopt.errors import ConfigError
from tfopt.tools.runs import listed, main

FIGURES = {"stage": "train", "bytes": 1, "examples": 100}


def run(folder, rows, shape=(8, 8, 1), machine="here", names=("a", "b"), **data):
    """Write the report of a run with (variant, accuracy, gzipped bytes, µs) rows."""
    columns = "variant", "accuracy", "gzip_bytes", "latency_median_us"
    report = {
        "experiment": {"data": {"type": "tfopt.data.digits.Digits", **data}},
        "environment": {"machine": machine},
        "data": {"shape": shape, "class_names": names},
        "rows": [FIGURES | dict(zip(columns, row, strict=True)) for row in rows],
    }
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))


@pytest.fixture
def runs(tmp_path):
    run(tmp_path / "one", [("float32", 0.9, 900, 5), ("int8", 0.8, 300, 3), ("bad", 0.7, 950, 9)])
    run(tmp_path / "deep/two", [("int8", 0.85, 200, 4)])
    run(tmp_path / "other", [("int8", 0.1, 9000, 90)], shape=(4,))
    return tmp_path


def test_the_best_of_each_run_and_the_front_over_all(runs):
    name, found = runs.name, [(e["run"], e["artifact"], e["fronts"]) for e in listed(runs)]
    assert found == [
        (f"{name}/other", "train_int8", ["size", "latency"]),  # alone on its data
        (f"{name}/deep/two", "train_int8", ["size", "latency"]),
        (
            f"{name}/one",
            "train_int8",
            ["latency"],
        ),  # the other run's is smaller
        (f"{name}/one", "train_float32", ["size", "latency"]),
    ]
    assert len(listed(runs, everything=True)) == 5


def test_only_what_was_measured_alike_is_compared(runs):
    run(runs / "faster", [("int8", 0.99, 100, 1)], machine="there")
    run(runs / "others", [("int8", 1.0, 50, 1)], seed=7)  # another test split
    found = {(e["run"].split("/")[-1], e["artifact"]): e["fronts"] for e in listed(runs)}
    assert found["one", "train_float32"] == ["latency"]
    assert found["faster", "train_int8"] == found["others", "train_int8"] == ["size", "latency"]


def test_the_table_has_a_part_for_each_data_set(runs, capsys):
    assert main([str(runs)]) == 0
    text = capsys.readouterr().out
    assert text.count("2 classes, 100 test examples") == 2
    assert "Digits, 8×8×1, 2 classes" in text and "90.00%" in text and "size and latency" in text


def test_what_of_one_name_is_another_data_set_has_a_part_of_its_own(runs, capsys):
    run(runs / "others", [("int8", 1.0, 50, 1)], seed=7)
    run(runs / "labelled", [("int8", 1.0, 50, 1)], shape=(4,), names=["b", "a"])
    assert main([str(runs)]) == 0
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines() if line.startswith("Digits")]
    assert [head.partition("examples, ")[2] for head in heads] == [
        *("set 1 of 2", "set 2 of 2", "seed=7", "seed=None"),
    ]
    assert [part.count("/others ") for part in text.split("\nDigits")] == [0, 0, 1, 0]


def test_noise_decides_no_front(tmp_path):
    run(tmp_path / "one", [("a", 0.9, 900, 20.3), ("b", 0.89, 800, 20.0), ("c", 0.88, 700, 19)])
    found = {e["artifact"]: e["fronts"] for e in listed(tmp_path)}
    assert found == {
        "train_a": ["size", "latency"],
        "train_b": ["size"],  # is faster, by less than is measured
        "train_c": ["size", "latency"],
    }


def test_what_is_no_report_is_named_and_left_out(runs, caplog):
    (runs / "one/report.json").write_text('{"rows": ')
    (runs / "other/report.json").write_text('{"rows": []}')
    assert [e["run"] for e in listed(runs)] == [f"{runs.name}/deep/two"]
    assert all(
        f"left out {runs / name / 'report.json'}" in caplog.text for name in ("one", "other")
    )


def test_no_run_at_all(tmp_path):
    with pytest.raises(ConfigError, match="at least one finished run under .*, received none"):
        listed(tmp_path)
    code, _, errors, loaded = answered("runs", str(tmp_path / "nowhere"))
    assert (code, loaded) == (2, "LIGHT")
    assert (
        errors.startswith("tfopt: expected a folder with runs, received")
        and errors.count("\n") == 1
    )
