"""Which artifacts are the good ones: the Pareto front, and the best of a run."""

import math
from collections.abc import Sequence

Point = tuple[float, float]

# Of one file measured again and again on one machine, nine of ten latencies differ by less.
LATENCY_NOISE = 0.05
_POINT = 0.01


def front(points: Sequence[Point], noise: float = 0.0) -> list[bool]:
    """Return for each (cost, gain) whether none on the front costs no more, gains no less.

    Costs are equal where the higher is at most 1 + `noise` times the other. Of equal points all
    are on the front.
    """
    on: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][1], points[i][0])):
        if not any(_beats(points[better], points[index], noise) for better in on):
            on.append(index)
    return [index in on for index in range(len(points))]


def _beats(point: Point, other: Point, noise: float) -> bool:
    """Return whether `point`, which gains no less than `other`, leaves it no place."""
    if point[1] > other[1]:
        return point[0] <= other[0] * (1 + noise)
    return point[0] * (1 + noise) < other[0]


def best(rows: list[dict]) -> dict | None:
    """Return the smallest artifact, gzipped, of those within a point of the most accurate.

    `rows` are those of a report; None where they hold no accuracy.
    """
    sound = [row for row in rows if math.isfinite(row["accuracy"])]
    most = max((row["accuracy"] for row in sound), default=0.0)
    near = [row for row in sound if row["accuracy"] >= most - _POINT]
    return min(near, key=lambda row: (row["gzip_bytes"], row["bytes"]), default=None)
