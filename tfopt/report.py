"""Rows of measurements -> report.json, report.md, a table for the terminal."""

import json
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tfopt
from tfopt import tables
from tfopt.checkpoint import write_atomically
from tfopt.compat import tf
from tfopt.debugger import MOST_DB
from tfopt.evaluate import NO_SMALLER, NOTHING_LEFT, REFERENCE_KERNELS
from tfopt.spec import shortened
from tfopt.templating import rendered

_PACKAGES = (
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
)
_COLUMNS = (
    "artifact",
    "accuracy",
    "agreement",
    "bytes",
    "gzipped",
    "zeros",
    "kernels",
    "integer ops",
    "median µs",
    "p90 µs",
)
_NONE = "–"


def write(
    rows: list[dict],
    stages: list[dict],
    experiment: dict,
    data: dict,
    workdir: Path,
    *,
    best: dict | None,
    config_hash: str = "",
    ended_by: str = "",
) -> dict:
    """Write report.json and report.md to `workdir`.

    A row is what `evaluate.Measurement.to_json` returns; an item of `stages` the facts of one
    stage before and after, its seconds and its history, to which `proofs` of its artifacts are
    added; `experiment` what was asked for and `data` the fields of its `Spec`, without which
    nobody can feed the artifacts. `best` is the row of the artifact to take, `config_hash` what its
    metadata have, `ended_by` the error of a run that failed.
    Returns what report.json holds.
    """
    content = {
        "tfopt": tfopt.__version__,
        "ended_by": ended_by,
        "best": name_of(best) if best else "",
        "config_hash": config_hash,
        "experiment": experiment,
        "data": data,
        "environment": environment(),
        "stages": [{**s, "proofs": p} for s, p in zip(stages, proofs(rows, stages), strict=True)],
        "rows": rows,
    }
    write_atomically(workdir / "report.json", json.dumps(content, indent=2) + "\n")
    write_atomically(workdir / "report.md", markdown(content))
    return content


def environment() -> dict[str, Any]:
    """Return what the figures depend on: versions, and the kind of machine."""
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
    }


def table(rows: list[dict], form: str = "simple") -> str:
    """Return a table with a line per artifact (stage x variant), for the terminal by default."""
    return tables.table([_cells(row) for row in rows], _COLUMNS, form=form)


def name_of(row: dict) -> str:
    """Return the name of the artifact of `row`, also its file's without the suffix."""
    return f"{row['stage']}_{row['variant']}"


def proofs(rows: list[dict], stages: list[dict]) -> list[dict]:
    """Return for each of `stages` what its artifact proves, and that of the stage before.

    The artifact is the int8 one or else the one of most integer operators; that of the stage
    before is of the same variant, where there is one. Each of `before` and `after` is None or
    has `artifact`, `integer_ops` (their share), `accuracy_gap` (of the artifact to its Keras
    model), `agreement` and `max_logit_difference`.
    """
    earlier: list[dict] = []
    found = []
    for stage in stages:
        mine = [row for row in rows if row["stage"] == stage["name"]]
        after = max(mine, key=_closeness(""), default=None)
        same = _closeness(after["variant"] if after else "")
        before = max(earlier, key=same, default=None)
        found.append({"before": _proof(before), "after": _proof(after)})
        earlier = mine
    return found


def _closeness(variant: str) -> Callable[[dict], tuple]:
    return lambda row: (row["variant"] == variant, row["variant"] == "int8", _integer_share(row))


def _proof(row: dict | None) -> dict | None:
    return row and {
        "artifact": name_of(row),
        "integer_ops": _integer_share(row),
        "accuracy_gap": row["accuracy"] - row["keras_accuracy"],
        "agreement": row["agreement"],
        "max_logit_difference": row["max_logit_difference"],
    }


def integers(row: dict) -> int:
    """Return how many operators of the artifact of `row` compute in int8 or int16."""
    return row["ops_int8"] + row["ops_int16"]


def operators(row: dict) -> int:
    """Return how many operators of the artifact of `row` compute."""
    return integers(row) + row["ops_hybrid"] + row["ops_float"]


def _integer_share(row: dict) -> float:
    return integers(row) / max(operators(row), 1)


def markdown(content: dict) -> str:
    """Return the text of report.md for what report.json holds."""
    filters = {
        "percent": _percent,
        "cell": _kernel_cell,
        "was": _kernel_before,
        "coverage": _coverage_cell,
        "gap": _gap_cell,
    }
    values = {
        "columns": _COLUMNS,
        "table": [_cells(row) for row in content["rows"]],
        "asked": json.dumps(shortened(content["experiment"]), indent=2),
        "most_db": MOST_DB,
        "reference_kernels": REFERENCE_KERNELS,
        "nothing_left": NOTHING_LEFT,
        "no_smaller": NO_SMALLER,
    }
    return rendered("report.md.j2", filters, {**content, **values})


def _cells(row: dict) -> tuple[str, ...]:
    return (
        name_of(row),
        _percent(row["accuracy"]),
        _percent(row["agreement"]),
        f"{row['bytes']:,}",
        f"{row['gzip_bytes']:,}",
        _percent(row["sparsity"]),
        "+".join(sorted({kernel["dtype"] for kernel in row["kernels"]})),
        f"{integers(row)}/{operators(row)}",
        f"{row['latency_median_us']:,.0f}",
        f"{row['latency_p90_us']:,.0f}",
    )


def _kernel_cell(kernel: dict) -> str:
    size = "×".join(map(str, kernel["shape"]))
    return (
        f"{_percent(kernel['zeros'] / math.prod(kernel['shape']))}, {kernel['distinct']} ({size})"
    )


def _coverage_cell(proof: dict | None) -> str:
    return f"{_percent(proof['integer_ops'])} ({proof['artifact']})" if proof else _NONE


def _gap_cell(proof: dict | None) -> str:
    if not proof:
        return _NONE
    points, agreement = 100 * proof["accuracy_gap"], _percent(proof["agreement"])
    return f"{points:+.2f} points, {agreement} agree, {proof['max_logit_difference']:.3g}"


def _kernel_before(before: list[dict], kernel: dict) -> str:
    same = [k for k in before if (k["layer"], k["name"]) == (kernel["layer"], kernel["name"])]
    return _kernel_cell(same[0]) if same else _NONE


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        # A build of another name, as tensorflow-tpu.
        return tf.__version__ if package == "tensorflow" else None
