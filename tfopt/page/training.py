"""The plots of how a model was trained, and of what it has come to."""

import math
from typing import Any

from tfopt.page.looks import (
    ACCENT,
    HEIGHT,
    INK,
    PALE,
    SOFT,
    figure,
    figures,
    margins,
    short,
    spread,
    svg,
    tip,
)
from tfopt.page.numbers import number


def curves(stages: list[dict]) -> str:
    """Return accuracy and loss by epoch, all stages one after another."""
    epochs = [epoch for stage in stages for epoch in stage.get("history") or []]
    if not epochs:
        return ""
    kinds = [kind for kind in ("accuracy", "loss") if any(kind in epoch for epoch in epochs)]
    with figure(HEIGHT, len(kinds), sharex=True, squeeze=False) as (made, grid):
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
    with figure(HEIGHT, 2, 1, sharex=True, height_ratios=(4, 1)) as (made, (axes, counts)):
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
