"""What loggers show of a finished run: its figures, its table, and the best of its artifacts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from tfopt import answers, report
from tfopt.loggers import Logger
from tfopt.loggers.base import PlainValue
from tfopt.spec import shortened

_FIGURES = (
    "accuracy",
    "agreement",
    "max_logit_difference",
    "bytes",
    "gzip_bytes",
    "sparsity",
    "ops_int8",
    "ops_int16",
    "ops_hybrid",
    "ops_float",
    "latency_median_us",
    "latency_p90_us",
)
_OF_BEST = ("accuracy", "bytes", "gzip_bytes", "latency_median_us")
_MOST_CLASSES = 20
_MOST_LAYERS = 20
# They say nothing of what was trained.
_NOT_ASKED = ("type", "source", "loggers", "profile")


def log(
    logger: Logger,
    rows: list[dict],
    best: dict | None,
    workdir: Path,
    class_names: tuple[str, ...],
) -> None:
    """Show the artifacts of `rows`, which stand in `workdir`, and the `best`, with `logger`.

    Of each stage these are `artifact_VARIANT/FIGURE`, and `noise_VARIANT/LAYER` for what a layer
    adds, in dB; of the run its table, the noisiest layers of each artifact with what helps, and
    of the best artifact figures and PR curves.
    """
    for row in rows:
        noise = {f"noise_{row['variant']}/{e['layer']}": e["own_db"] for e in row["layers"]}
        figures = {f"artifact_{row['variant']}/{name}": row[name] for name in _FIGURES}
        logger.figures(row["stage"], {**figures, **noise})
        if row["layers"]:
            logger.text(f"noise/{report.name_of(row)}", _worst_first(row["layers"]))
    if best is None:
        return
    logger.figures("", {f"best/{name}": best[name] for name in _OF_BEST})
    logger.text("artifacts", f"{report.table(rows, 'pipe')}\n\nThe best: {report.name_of(best)}.")
    found = answers.read(workdir / best["stage"], best["variant"])
    if found is not None:
        logger.pr_curves(_curves(found, class_names))


def _worst_first(layers: list[dict]) -> str:
    lines = [
        f"1. `{e['layer']}`: {e['own_db']:.1f} dB of its own, {e['sqnr_db']:.1f} in all. "
        + e["advice"]
        for e in layers[:_MOST_LAYERS]
    ]
    return "Signal to noise between the Keras model and the file:\n\n" + "\n".join(lines)


def flat(tree: dict) -> dict[str, PlainValue]:
    """Return what an experiment's JSON `tree` holds by the field, as on the command line.

    Long lists are cut.
    """
    asked = {name: value for name, value in tree.items() if name not in _NOT_ASKED}
    return dict(_leaves(shortened(asked)))


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, PlainValue]]:
    if isinstance(value, dict):
        for name, child in value.items():
            if name == "type":
                yield at, child.split(".")[-1]
            else:
                yield from _leaves(child, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{at}[{index}]")
    else:
        yield at, value if isinstance(value, (bool, int, float)) else _shown(value)


def _curves(found: answers.Answers, names: tuple[str, ...]) -> dict[str, tuple]:
    """Return for each class, or the worst of many, which examples are of it and its probability."""
    probabilities = softmax(found.logits.astype(np.float64), axis=-1)
    right = found.logits.argmax(-1) == found.labels
    hits = {c: right[found.labels == c].mean() for c in np.unique(found.labels)}
    worst = sorted(hits, key=hits.__getitem__)[:_MOST_CLASSES]
    return {f"pr/{names[c]}": (found.labels == c, probabilities[:, c]) for c in sorted(worst)}


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
