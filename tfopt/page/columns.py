"""The columns of the table of artifacts."""

from collections.abc import Callable
from typing import Any

from tfopt.page.numbers import number
from tfopt.pareto import LATENCY_NOISE, front
from tfopt.report import integers, operators


def columns(rows: list[dict]) -> list[dict[str, Any]]:
    """Return the columns of the table of `rows`: `head`, and `cells` of `text` and sort `key`."""
    made = [
        _column("accuracy", rows, lambda row: row["accuracy"], _percent),
        _column("agreement", rows, lambda row: row["agreement"], _percent),
        _column("bytes", rows, lambda row: row["bytes"], _whole),
        _column("gzipped", rows, lambda row: row["gzip_bytes"], _whole),
        _column("zeros", rows, lambda row: row["sparsity"], _percent),
        _column("median µs", rows, lambda row: row["latency_median_us"], _micros),
        _column("p90 µs", rows, lambda row: row["latency_p90_us"], _micros),
        {
            "head": "integer ops",
            "cells": [
                {"text": f"{integers(row)}/{operators(row)}", "key": integers(row)} for row in rows
            ],
        },
        _column("arena", rows, lambda row: row.get("arena_bytes"), _whole),
        {
            "head": "kernels",
            "cells": [
                {"text": " + ".join(kinds), "key": " ".join(kinds)}
                for kinds in (sorted({k["dtype"] for k in row["kernels"]}) for row in rows)
            ],
        },
        {
            "head": "front of",
            "cells": [{"text": _word(each), "key": each} for each in _fronts(rows)],
        },
    ]
    return [column for column in made if any(cell["text"] != "–" for cell in column["cells"])]


def _column(
    head: str, rows: list[dict], figure: Callable[[dict], Any], write: Callable[[Any], str]
) -> dict:
    values = [figure(row) for row in rows]
    cells = [
        {"text": write(value), "key": value} if number(value) else {"text": "–", "key": ""}
        for value in values
    ]
    return {"head": head, "cells": cells}


def _fronts(rows: list[dict]) -> list[int]:
    """Return for each of `rows` the sum of 1 if it is on the front of size, and 2 of latency."""
    found = [0] * len(rows)
    for worth, cost, noise in (
        (1, "gzip_bytes", 0.0),
        (2, "latency_median_us", LATENCY_NOISE),
    ):
        sound = [i for i, row in enumerate(rows) if number(row[cost]) and number(row["accuracy"])]
        points = [(rows[index][cost], rows[index]["accuracy"]) for index in sound]
        for index, is_best in zip(sound, front(points, noise), strict=True):
            found[index] += worth * is_best
    return found


def _word(fronts: int) -> str:
    return ("", "size", "latency", "size, latency")[fronts]


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _whole(count: float) -> str:
    return f"{count:,.0f}"


def _micros(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
