"""The plots of artifacts, each an <svg>, or "" where there is nothing to draw."""

from itertools import compress
from typing import Any

from tfopt.page.looks import (
    ACCENT,
    HEIGHT,
    LINE,
    PAPER,
    SOFT,
    figure,
    margins,
    room_for,
    short,
    spread,
    svg,
    tip,
)
from tfopt.page.numbers import bits, number
from tfopt.pareto import front
from tfopt.report import name_of

_MARKERS = "osD^vPX<>"
_LABELLED = 6
_LEAST_POINTS = 1.5
_ROW, _MOST_HEIGHT = 17, 420
_TENTH_DB = 20
_CROWDED = 30


def trade_off(rows: list[dict], cost: str, unit: str, noise: float = 0.0) -> str:
    """Return accuracy against the figure `cost` of `rows`, with the Pareto front marked.

    Costs less than `noise` apart are equal, see `pareto.front`.
    """
    rows = [row for row in rows if number(row["accuracy"]) and number(row.get(cost))]
    rows = [row for row in rows if row[cost] > 0]
    if not rows:
        return ""
    points = [(row[cost], 100 * row["accuracy"]) for row in rows]
    best = front(points, noise)
    with figure(HEIGHT) as (made, axes):
        edge = sorted(compress(points, best))
        axes.step(*zip(*edge, strict=True), where="post", color=ACCENT, lw=1.2, zorder=1)
        _mark_points(axes, rows, points, best, unit)
        costs = [point[0] for point in points]
        spread(axes.xaxis, min(costs), max(costs))
        axes.set_ylim(*_shown([gain for _, gain in points]))
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.set_xlabel(f"{unit}, fewer is better")
        _name_points(axes, rows, points, best)
        margins(made, left=50, top=30)
        named = ", ".join(name_of(row) for row in compress(rows, best))
        return svg(made, f"Accuracy against {unit}; on the Pareto front: {named}.")


def _mark_points(
    axes: Any, rows: list[dict], points: list[tuple], best: list[bool], unit: str
) -> None:
    """Draw `points`, with a marker for each stage, which a legend names."""
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    markers = {stage: _MARKERS[index % len(_MARKERS)] for index, stage in enumerate(stages)}
    for row, point, is_best in zip(rows, points, best, strict=True):
        edge = ACCENT if is_best else SOFT
        look: Any = {"c": ACCENT if is_best else PAPER, "mec": edge, "ms": 7, "mew": 1.4}
        (mark,) = axes.plot(*point, markers[row["stage"]], **look, zorder=2 + is_best)
        tip(mark, f"{name_of(row)}: {point[1]:.2f}%, {point[0]:,.0f} {unit}")
    keys = [axes.plot([], [], markers[stage], c=PAPER, mec=SOFT)[0] for stage in stages]
    place = {"loc": "upper left", "ncols": 4, "bbox_to_anchor": (-0.02, 1.12)}
    names = [short(stage, 14) for stage in stages]
    axes.legend(keys, names, **place, handletextpad=0.1, columnspacing=1.2)


def _shown(gains: list[float]) -> tuple[float, float]:
    """Return the limits of an axis that makes no mountain of an example more or less."""
    middle = (min(gains) + max(gains)) / 2
    half = max((max(gains) - min(gains)) * 0.7, _LEAST_POINTS / 2)
    return middle - half, middle + half


def _name_points(axes: Any, rows: list[dict], points: list[tuple], best: list[bool]) -> None:
    """Write at the first few points of the front what they are."""
    named = sorted(zip(compress(points, best), compress(rows, best), strict=True), key=str)
    for point, row in named[:_LABELLED]:
        left = axes.transAxes.inverted().transform(axes.transData.transform(point))[0] > 0.5
        axes.annotate(
            name_of(row),
            point,
            xytext=(-6, 6) if left else (6, -13),  # where the front has no other point
            textcoords="offset points",
            ha="right" if left else "left",
        )


def layers(row: dict) -> str:
    """Return the share of zeros and the bits of each kernel in the artifact of `row`."""
    kernels = [kernel for kernel in row["kernels"] if kernel["size"]]
    if not kernels:
        return ""
    names = [short(kernel["name"]) for kernel in kernels]
    shares = [100 * kernel["zeros"] / kernel["size"] for kernel in kernels]
    widths = [bits(kernel["dtype"]) for kernel in kernels]
    with figure(_height(names), 1, 2, sharey=True, width_ratios=(3, 1)) as (made, (left, right)):
        places = range(len(names))
        left.barh(places, shares, 0.62, color=ACCENT)
        left.set(xlim=(0, 100), xticks=(0, 25, 50, 75), xlabel="zeros, %")
        right.barh(places, widths, 0.62, color=SOFT)
        right.set(xlim=(0, 33), xticks=(0, 8, 32), xlabel="bits")
        _name_rows(left, names)
        right.tick_params(axis="y", length=0)
        margins(made, left=room_for(names))
        made.subplots_adjust(wspace=0.1)
        told = ", ".join(
            f"{n} {s:.0f}% in {w} bits" for n, s, w in zip(names[:40], shares, widths, strict=False)
        )
        return svg(made, f"Zeros and bits of each kernel of {name_of(row)}: {told}.")


def noise(row: dict, most_db: float) -> str:
    """Return the signal to noise of each layer in the artifact of `row`, in dB, worst first."""
    found = [
        layer
        for layer in row["layers"]
        if number(layer["own_db"]) and number(layer["sqnr_db"]) and layer["own_db"] < most_db
    ]
    if not found:
        return ""
    names = [short(layer["layer"]) for layer in found]
    with figure(_height(names) + 16) as (made, axes):
        places = range(len(names))
        own = [layer["own_db"] for layer in found]
        whole = [min(layer["sqnr_db"], most_db) for layer in found]
        axes.hlines(places, own, whole, color=LINE, lw=3)
        size: Any = {"marker": "o", "ls": "", "ms": 6 if len(names) < _CROWDED else 2.5}
        axes.plot(whole, places, **size, c=PAPER, markeredgecolor=SOFT, mew=1.2, label="in all")
        axes.plot(own, places, **size, c=ACCENT, label="its own")
        axes.axvline(_TENTH_DB, color=SOFT, lw=1, ls=(0, (4, 3)))
        axes.set_xlabel("signal to noise, dB, more is better")
        axes.set_xlim(min(0, *own, *whole) - 2, max(_TENTH_DB, *own, *whole) + 4)
        _name_rows(axes, names)
        axes.legend(loc="upper left", ncols=2, bbox_to_anchor=(-0.02, 1 + 28 / _height(names)))
        margins(made, left=room_for(names), top=28)
        worst = ", ".join(f"{n} {db:.0f} dB" for n, db in zip(names[:10], own, strict=False))
        return svg(made, f"Noise of the layers of {name_of(row)}, worst first: {worst}.")


def _height(names: list[str]) -> float:
    return min(_ROW * len(names), _MOST_HEIGHT) + 58


def _name_rows(axes: Any, names: list[str]) -> None:
    """Write `names` from the top down, of many only every n-th."""
    step = -(-_ROW * len(names) // _MOST_HEIGHT)
    axes.set_yticks(range(0, len(names), step), names[::step])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
