"""Which artifact a run ends with, and whether that fits the microcontroller that it is for."""

import logging
import math
from pathlib import Path

from tfopt import pareto
from tfopt.errors import RunError
from tfopt.limits import Budget
from tfopt.report import name_of
from tfopt.tflite import flatbuffer, micro
from tfopt.tflite.c_array import remove_c_array, write_c_array

_LOG = logging.getLogger(__name__)
# What of a row a limit is of.
FIGURES = {"flash": "bytes", "arena": "arena_bytes"}


def best(budget: Budget, rows: list[dict]) -> dict | None:
    """Return the artifact of `rows` to take, see `pareto.best`; None where there is none.

    It is one of the last stage within `budget`; where there is no budget, or nothing within it,
    one of all.
    """
    fitting = [row for row in last_stage(rows) if share(budget, row) <= 1] if budget else []
    return pareto.best(fitting or rows)


def last_stage(rows: list[dict]) -> list[dict]:
    """Return the artifacts of the last stage that has any."""
    return [row for row in rows if row["stage"] == rows[-1]["stage"]]


def share(budget: Budget, row: dict) -> float:
    """Return the largest share of a limit that the file of `row` takes.

    That is infinity where TensorFlow Lite Micro can't run it, or its arena can't be planned.
    """
    if row.get("micro_refused"):
        return math.inf
    limits = {figure: getattr(budget, what) for what, figure in FIGURES.items()}
    taken = {figure: row.get(figure) for figure, limit in limits.items() if limit}
    if None in taken.values():
        return math.inf
    return max((used / limits[figure] for figure, used in taken.items()), default=0.0)


def check(budget: Budget, rows: list[dict], folder: Path) -> None:
    """Write the C array of the best artifact of `rows`, whose files are in `folder`.

    Raises RunError where there is a `budget` and no artifact of the last stage is within it.
    """
    if not budget:
        return
    chosen = best(budget, rows)
    fits = chosen is not None and chosen in last_stage(rows) and share(budget, chosen) <= 1
    for row in rows:
        if not fits or row is not chosen:
            remove_c_array(folder, name_of(row))
    if chosen is None or not fits:
        raise RunError(_missed(budget, rows, folder))
    name, arena = name_of(chosen), chosen["arena_bytes"]
    content = (folder / f"{name}.tflite").read_bytes()
    _, source = write_c_array(content, folder, name, f"{name}.tflite")
    _LOG.info(
        "artifact %s: %s bytes of flash and %s of arena are within the budget; as C array in %s.",
        *(name, f"{len(content):,}", "an unknown number" if arena is None else f"{arena:,}"),
        source,
    )


def _missed(budget: Budget, rows: list[dict], folder: Path) -> str:
    """Return by how much the nearest of the last stage misses the `budget`, and what to do."""
    limits = {"flash": budget.flash, "arena": budget.arena}
    asked = " and ".join(f"{limit:,} bytes of {what}" for what, limit in limits.items() if limit)
    expected = f"config.budget: expected an artifact of the last stage within {asked}, received"
    nearest = min(last_stage(rows), key=lambda row: share(budget, row), default=None)
    if nearest is None:
        return f"{expected} no artifact."
    content = (folder / f"{name_of(nearest)}.tflite").read_bytes()
    reasons = micro.fit(content, flatbuffer.read(content)).missed(budget)
    if refused := nearest.get("micro_refused"):
        reasons = [f"TensorFlow Lite Micro refuses it ({refused}); add Int8() to the variants."]
    return f"{expected} none; {name_of(nearest)} is the nearest: {' '.join(reasons)}"
