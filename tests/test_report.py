import json

import pytest

import tfopt
from tfopt import report
from tfopt.compat import tf

KERNEL = {
    "name": "conv",
    "operator": "CONV_2D",
    "shape": [8, 3, 3, 4],
    "dtype": "int8",
    "zeros": 216,
    "size": 288,
    "codes": 11,
    "codes_total": 40,
}

NOISE = {"layer": "conv", "own_db": 11.25, "sqnr_db": 9.0, "advice": "Equalize()"}


def row(stage, variant, **changes):
    return {
        "stage": stage,
        "variant": variant,
        "examples": 360,
        "accuracy": 0.9778,
        "keras_accuracy": 0.9722,
        "chance": 0.1,
        "is_chance": False,
        "agreement": 0.9944,
        "max_logit_difference": 0.153,
        "bytes": 79_488,
        "gzip_bytes": 31_002,
        "sparsity": 0.75,
        "float_bytes": 1_300_000,
        "ops_int8": 7,
        "ops_int16": 0,
        "ops_hybrid": 0,
        "ops_float": 1,
        "float_ops": ["SOFTMAX probabilities"],
        "latency_median_us": 1234.4,
        "latency_p90_us": 1300.0,
        "kernels": [KERNEL],
        "layers": [NOISE],
        **changes,
    }


SLOW = "prune_int16x8 is slow here**: on a CPU its int16 operators run on reference kernels"
ROWS = [
    row("train", "float32", bytes=1_318_424),
    row("prune", "int8", kernels=[KERNEL, {**KERNEL, "dtype": "int4"}]),
    row("prune", "float16", bytes=2_000_000),
]
EXPERIMENT = {"type": "tfopt.config.Experiment", "name": "digits <1>", "batch_size": 32}

FACTS = {
    "kernels": [
        {
            "layer": "conv",
            "layer_type": "Conv2D",
            "name": "kernel",
            "shape": [3, 3, 4, 8],
            "zeros": 0,
            "distinct": 36,
        }
    ],
    "params": 296,
    "macs": 18_432,
    "sparsity": 0.0,
}
PRUNED = {**FACTS, "kernels": [{**FACTS["kernels"][0], "zeros": 216, "distinct": 10}]}
MESH = {"batch": 2, "model": 4, "bytes_per_device": 1500, "bytes": 4000}
FLOAT = {"lstm": "TFLite has no int8 kernel for it"}
STAGES = [
    {
        "name": "train",
        "seconds": 12.3,
        "waited": 0.015,
        "mesh": MESH,
        "before": FACTS,
        "after": FACTS,
    },
    {
        "name": "prune",
        "seconds": 4.0,
        "waited": 0.0,
        "mesh": None,
        "before": FACTS,
        "after": PRUNED,
    },
]
STAGES = [{**stage, "left_float": left} for stage, left in zip(STAGES, ({}, FLOAT), strict=True)]

DATA = {
    "shape": [8, 8, 1],
    "class_names": ["zero", "one"],
    "train_size": 90,
    "normalisation": {"mean": [4.5], "std": [6.25]},
    "limits": None,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    report.write(ROWS, STAGES, EXPERIMENT, DATA, folder, best=ROWS[1], config_hash="ab12")
    return folder


def test_json_holds_everything(workdir):
    found = json.loads((workdir / "report.json").read_text())
    assert found["rows"] == ROWS
    assert (found["best"], found["config_hash"]) == ("prune_int8", "ab12")
    assert list(found["rows"][0]) == list(ROWS[0])
    assert found["experiment"] == EXPERIMENT
    assert [{k: s[k] for k in s if k != "proofs"} for s in found["stages"]] == STAGES
    assert [s["proofs"] for s in found["stages"]] == report.proofs(ROWS, STAGES)
    assert found["data"] == DATA
    assert found["tfopt"] == tfopt.__version__
    assert found["environment"]["tensorflow"] == tf.__version__
    assert all(found["environment"].values())


def test_a_stage_is_proven_by_the_int8_artifact_and_the_like_of_the_stage_before():
    rows = [
        row("train", "float32", ops_int8=0, ops_float=8),
        row("train", "int8_mse"),
        row("prune", "int8", ops_int8=6, ops_float=2),
        row("prune", "int16x8", ops_int8=0, ops_int16=8, ops_float=0),
        row("quantize", "int16x8", ops_int8=0, ops_int16=7),
    ]
    stages = [{"name": name} for name in ("train", "prune", "quantize", "unproven")]
    found = report.proofs(rows, stages)
    names = [[proof[k] and proof[k]["artifact"] for k in ("before", "after")] for proof in found]
    assert names == [
        [None, "train_int8_mse"],
        ["train_int8_mse", "prune_int8"],
        ["prune_int16x8", "quantize_int16x8"],
        ["quantize_int16x8", None],
    ]
    assert [proof["after"]["integer_ops"] for proof in found[:-1]] == [7 / 8, 6 / 8, 7 / 8]
    assert found[0]["after"]["accuracy_gap"] == pytest.approx(0.0056)


def test_table_has_a_line_per_artifact():
    lines = report.table(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[2].split() == [
        *("train_float32", "97.78%", "99.44%", "1,318,424", "31,002", "75.00%", "int8"),
        *("7/8", "1,234", "1,300"),
    ]
    assert " int4+int8 " in lines[3]
    assert lines[3].startswith("prune_int8 ")


def test_markdown_is_whole(workdir):
    text = (workdir / "report.md").read_text()
    whole = json.loads((workdir / "report.json").read_text())
    lines = text.splitlines()
    assert lines[0] == "# digits <1>"
    start = next(i for i, line in enumerate(lines) if line.startswith("| artifact | accuracy"))
    assert [line.count("|") for line in lines[start : start + 5]] == [11] * 5
    assert "| prune_int8 | 97.78% | 99.44% | 79,488 | 31,002 | 75.00% | int4+int8 | 7/8 |" in text
    assert "| conv | CONV_2D | 8×3×3×4 | int8 | 216 | 288 | 75.00% | 11 (40) |" in text
    assert "<summary>prune, 4 s: 296 parameters, 0.00% zeros</summary>" in text
    assert text.count("<details") == text.count("</details>") == 2 + len(ROWS) + len(ROWS) + 1
    assert "| integer operators (artifact) | – | 87.50% (train_float32) |" in text
    assert "| integer operators (artifact) | 87.50% (train_float32) | 87.50% (prune_int8) |" in text
    assert "| artifact against Keras | – | +0.56 points, 99.44% agree, 0.153 |" in text
    assert "- `lstm` stays float: TFLite has no int8 kernel for it." in text
    assert "bytes on each device of a 2×4 mesh (in all) | – | 1,500 (4,000) |" in text
    assert text.count("mesh (in all)") == 1
    assert "| waiting for data | – | 1.50% |" in text
    assert "| multiply-accumulates | 18,432 | 18,432 |" in text
    assert "| 0.00%, 36 (3×3×4×8) | 75.00%, 10 (3×3×4×8) |" in text
    assert "Stayed float: SOFTMAX probabilities." in text
    assert '"batch_size": 32' in text
    assert "Input: 8×8×1 values" in text
    assert "4.5 and std 6.25" in text
    assert "tfopt inspect artifacts/train_float32.tflite" in text
    assert "| conv | 11.2 | 9.0 | Equalize() |" in text
    assert "**prune_float16 is no smaller**: 2,000,000 bytes" in text
    assert text.count("is no smaller") == 1
    assert SLOW not in text
    assert SLOW in report.markdown(whole | {"rows": [row("prune", "int16x8", ops_int16=1)]})
    assert "of no use" not in text
    assert "prune_int8 is of no use" in report.markdown(
        whole | {"rows": [row("prune", "int8", is_chance=True)]}
    )
    assert "{{" not in text
    assert "{%" not in text


def test_no_rows_still_make_a_report(tmp_path):
    report.write([], [], EXPERIMENT, DATA, tmp_path, best=None)
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == []
    assert (tmp_path / "report.md").exists()
