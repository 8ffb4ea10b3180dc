"""The figures of a run that its page speaks of."""

import math
import re
from typing import Any

from tfopt import budget, pareto
from tfopt.comparison import share
from tfopt.report import name_of

_ALIKE = 1.05


def number(value: Any) -> bool:
    """Return whether `value` is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def bits(dtype: str) -> int:
    """Return the bits of a type such as int8; 32 of one that has none in its name."""
    found = re.search(r"\d+$", dtype)
    return int(found.group()) if found else 32


def float_row(rows: list[dict]) -> dict | None:
    """Return the first artifact whose kernels are all float32, which the others are held to."""
    return next((row for row in rows if {k["dtype"] for k in row["kernels"]} == {"float32"}), None)


def against(figure: float, other: float, less: str, more: str) -> str:
    """Return `figure` against `other` in words: 3.4 times `less`, or 1.2 times `more`."""
    if not (number(figure) and number(other) and figure > 0 and other > 0):
        return ""
    ratio = max(figure, other) / min(figure, other)
    return f"{ratio:.1f} times {less if figure < other else more}" if ratio >= _ALIKE else "alike"


def interval(row: dict) -> tuple[float, float]:
    """Return the 95% interval of the accuracy of `row`."""
    _, low, high = share(round(row["accuracy"] * row["examples"]), row["examples"])
    return low, high


def zeros_of(kernel: dict) -> float:
    """Return the share of zeros in a `kernel` of a model."""
    return kernel["zeros"] / max(math.prod(kernel["shape"]), 1)


def probed(content: dict) -> dict | None:
    """Return the best artifact whose layers were looked at, if not of all then of the last."""
    looked_at = [
        row for row in [best(content), *reversed(content["rows"])] if row and row["layers"]
    ]
    return next(iter(looked_at), None)


def best(content: dict) -> dict | None:
    """Return the artifact that the run ends with, None where it has none."""
    found = (row for row in content["rows"] if name_of(row) == content["best"])
    return next((row for row in found if number(row["accuracy"])), None)


def compressed(content: dict) -> dict | None:
    """Return the best artifact of the last stage: that of the run, if it is there."""
    last = budget.last_stage(content["rows"])
    return best(content) if best(content) in last else pareto.best(last)
