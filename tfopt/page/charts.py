"""The plots of a run, each an <svg>, or "" where there is nothing to draw."""

import math
from itertools import compress
from typing import Any

from tfopt.page.looks import (
    ACCENT,
    INK,
    LINE,
    PALE,
    PAPER,
    SOFT,
    figure,
    figures,
    margins,
    room_for,
    short,
    spread,
    svg,
    tip,
)
from tfopt.page.numbers import bits, name_of, number
from tfopt.pareto import front

_MARKERS = "osD^vPX<>"
_HEIGHT = 310
_LABELLED = 6
_LEAST_POINTS = 1.5
_ROW, _MOST_HEIGHT = 17, 420
_TENTH_DB = 20
_CROWDED = 30


def trade_off(rows: list[dict], cost: str, unit: str) -> str:
    """Return accuracy against the figure `cost` of `rows`, with the Pareto front marked."""
    rows = [row for row in rows if number(row.get(cost)) and row[cost] > 0]
    rows = [row for row in rows if number(row["accuracy"])]
    if not rows:
        return ""
    points = [(row[cost], 100 * row["accuracy"]) for row in rows]
    best = front(points)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    with figure(_HEIGHT) as (made, axes):
        edge = sorted(compress(points, best))
        axes.step(*zip(*edge, strict=True), where="post", color=ACCENT, lw=1.2, zorder=1)
        for row, point, is_best in zip(rows, points, best, strict=True):
            (mark,) = axes.plot(
                *point,
                _MARKERS[stages.index(row["stage"]) % len(_MARKERS)],
                color=ACCENT if is_best else PAPER,
                markeredgecolor=ACCENT if is_best else SOFT,
                ms=7,
                mew=1.4,
                zorder=3 if is_best else 2,
            )
            tip(mark, f"{name_of(row)}: {point[1]:.2f}%, {point[0]:,.0f} {unit}")
        for index, stage in enumerate(stages):
            marker = _MARKERS[index % len(_MARKERS)]
            axes.plot([], [], marker, color=PAPER, markeredgecolor=SOFT, label=short(stage, 14))
        costs = [point[0] for point in points]
        spread(axes.xaxis, min(costs), max(costs))
        axes.set_ylim(*_shown([gain for _, gain in points]))
        axes.yaxis.set_major_formatter("{x:g}%")
        _name_points(axes, rows, points, best)
        axes.set_xlabel(f"{unit}, fewer is better")
        legend = {"loc": "upper left", "ncols": 4, "bbox_to_anchor": (-0.02, 1.12)}
        axes.legend(**legend, handletextpad=0.1, columnspacing=1.2)
        margins(made, left=50, top=30)
        named = ", ".join(name_of(row) for row in compress(rows, best))
        return svg(made, f"Accuracy against {unit}; on the Pareto front: {named}.")


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


def curves(stages: list[dict]) -> str:
    """Return accuracy and loss by epoch, all stages one after another."""
    epochs = [epoch for stage in stages for epoch in stage.get("history") or []]
    if not epochs:
        return ""
    kinds = [kind for kind in ("accuracy", "loss") if any(kind in epoch for epoch in epochs)]
    with figure(_HEIGHT, len(kinds), sharex=True, squeeze=False) as (made, grid):
        for axes, kind in zip(grid[:, 0], kinds, strict=True):
            scale = 100 if kind == "accuracy" else 1
            _lines(axes, stages, kind, SOFT, "training", scale)
            _lines(axes, stages, f"val_{kind}", ACCENT, "validation", scale)
            axes.set_ylabel(kind, labelpad=2)
            values = [v for e in epochs for v in (e.get(kind), e.get(f"val_{kind}")) if number(v)]
            if kind == "loss" and values and min(values) > 0:
                spread(axes.yaxis, min(values), max(values))
        _name_stages(grid[:, 0], stages)
        grid[-1, 0].set_xlabel("epoch")
        grid[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:
            grid[-1, 0].set_xticks([1])
        legend = {
            "loc": "upper left",
            "ncols": 2,
            "bbox_to_anchor": (-0.02, 1.17 if len(kinds) == 1 else 1.39),
        }
        grid[0, 0].legend(**legend, columnspacing=1.2)
        margins(made, left=56, top=48)
        made.subplots_adjust(hspace=0.14)
        last = epochs[-1]
        told = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if number(v) and "acc" in k)
        return svg(made, f"Training curves of {len(epochs)} epochs; the last has {told or 'none'}.")


def _lines(axes: Any, stages: list[dict], kind: str, colour: str, label: str, scale: float) -> None:
    """Draw a line for each of `stages`, which begins anew with each."""
    first = 1
    for stage in stages:
        history = stage.get("history") or []
        values = [scale * v if number(v := epoch.get(kind)) else math.nan for epoch in history]
        if not all(map(math.isnan, values)):
            style = "o" if len(values) == 1 else "-"
            axes.plot(range(first, first + len(values)), values, style, c=colour, ms=4, label=label)
            label = "_"
        first += len(history)


def _name_stages(grid: Any, stages: list[dict]) -> None:
    """Write above the first axes of `grid` where each stage begins, and draw that in all."""
    trained = [stage for stage in stages if stage.get("history")]
    total, first = sum(len(stage["history"]) for stage in trained), 1
    for stage in trained:
        count = len(stage["history"])
        for axes in grid if first > 1 else ():
            axes.axvline(first - 0.5, color=SOFT, lw=0.8, ls=(0, (2, 3)))
        # As many letters as the stage is wide, or none.
        most = int(56 * count / total)
        if most > 2:
            axes = grid[0]
            place = (first - 0.4 if first > 1 else first, 1.03)
            name = stage["name"]
            name = name if len(name) <= most else f"{name[: most - 1]}…"
            axes.text(*place, name, transform=axes.get_xaxis_transform())
        first += count


def reliability(found: list[dict]) -> str:
    """Return accuracy against confidence, for the bins `found` by `verdicts.reliability`."""
    if not found:
        return ""
    with figure(_HEIGHT, 2, 1, sharex=True, height_ratios=(4, 1)) as (made, (axes, counts)):
        axes.plot((0, 1), (0, 1), color=SOFT, lw=1, ls=(0, (4, 3)))
        width = found[0]["width"]
        for bar in found:
            middle = bar["low"] + width / 2
            (drawn,) = axes.bar(middle, bar["accuracy"], width * 0.9, color=ACCENT)
            text = f"confidence {bar['confidence']:.1%}, right {bar['accuracy']:.1%}"
            tip(drawn, f"{text}, {bar['count']:,} examples")
            axes.plot([middle - width / 2.2, middle + width / 2.2], [bar["confidence"]] * 2, c=INK)
        middles = [bar["low"] + width / 2 for bar in found]
        counts.bar(middles, [bar["count"] for bar in found], width * 0.9, color=SOFT)
        counts.set(xlabel="confidence", yscale="log")
        counts.yaxis.set_major_formatter(figures)
        counts.minorticks_off()
        counts.set_ylabel("count", labelpad=2)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share right")
        margins(made, left=56)
        made.subplots_adjust(hspace=0.16)
        told = ", ".join(f"{b['confidence']:.0%} sure: {b['accuracy']:.0%} right" for b in found)
        return svg(made, f"Reliability: {told}.")


def weights(stages: list[dict]) -> str:
    """Return the histograms of all weights before and after each stage."""
    stages = [stage for stage in stages if stage.get("weights")]
    if not stages:
        return ""
    limit = max(stage["weights"]["limit"] for stage in stages)
    height = 62 * len(stages) + 74
    with figure(height, len(stages), sharex=True, squeeze=False) as (made, grid):
        for axes, stage in zip(grid[:, 0], stages, strict=True):
            end, bins = stage["weights"]["limit"], len(stage["weights"]["after"])
            edges = [end * (2 * n / bins - 1) for n in range(bins + 1)]
            percents = {k: [100 * s for s in stage["weights"][k]] for k in ("before", "after")}
            axes.stairs(percents["after"], edges, fill=True, color=PALE, label="after")
            axes.stairs(percents["after"], edges, color=ACCENT, lw=1.2, baseline=None)
            axes.stairs(percents["before"], edges, color=SOFT, lw=1.2, label="before")
            least = 10 ** math.floor(math.log10(max(min(_above(percents)), 1e-3)))
            axes.set(yscale="log", ylim=(least, 200), xlim=(-limit, limit))
            axes.set_yticks([t for t in (0.01, 1, 100) if t >= least])
            axes.yaxis.set_major_formatter(figures)
            axes.minorticks_off()
            axes.set_title(short(stage["name"]), pad=2, fontsize=11)
        grid[-1, 0].set_xlabel("weight (height: % of all, on a log scale)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        place = (1 - 10 / 400, 1)
        made.legend(handles[::-1], labels[::-1], loc="upper right", ncols=2, bbox_to_anchor=place)
        margins(made, left=44, top=24)
        made.subplots_adjust(hspace=0.5)
        names = ", ".join(stage["name"] for stage in stages)
        return svg(made, f"Histograms of the weights before and after {names}.")


def _above(percents: dict[str, list[float]]) -> list[float]:
    return [share for shares in percents.values() for share in shares if share > 0] or [1.0]


def _height(names: list[str]) -> float:
    return min(_ROW * len(names), _MOST_HEIGHT) + 58


def _name_rows(axes: Any, names: list[str]) -> None:
    """Write `names` from the top down, of many only every n-th."""
    step = -(-_ROW * len(names) // _MOST_HEIGHT)
    axes.set_yticks(range(0, len(names), step), names[::step])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
