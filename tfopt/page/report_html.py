"""report.html: what is on the page, put together."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tfopt import answers, comparison
from tfopt.checkpoint import write_atomically
from tfopt.data import Splits
from tfopt.debugger import MOST_DB
from tfopt.page import charts, examples, numbers, training, verdicts
from tfopt.page.columns import columns
from tfopt.page.looks import short
from tfopt.page.promises import promises
from tfopt.pareto import LATENCY_NOISE
from tfopt.report import integers, name_of, operators
from tfopt.spec import shortened
from tfopt.templating import rendered, source

_LOG = logging.getLogger(__name__)
_SPELLED_OUT, _PICTURED = 20, 1000  # classes, for which the confusion matrix is a table, or is
_EXAMPLES = 12
_LOOKED_AT = 10_000  # test examples, as they are read anew to be shown
_FILTERS = {
    "percent": lambda share: f"{share:.2%}" if numbers.number(share) else "–",
    "commas": lambda count: f"{count:,.0f}" if numbers.number(count) else "–",
    "short_type": lambda spec: str(spec.get("type", "")).split(".")[-1],
    "short": short,
    "against": numbers.against,
    "name_of": name_of,
    "interval": numbers.interval,
    "integers": integers,
    "operators": operators,
    "zeros_of": numbers.zeros_of,
}


def write(content: dict, workdir: Path, splits: Splits, command: str = "") -> None:
    """Write report.html to `workdir`, for the `content` of its report.json.

    `splits` are those that were measured on; `command` is the command line of the run, "" where it
    was begun from Python. What can't be drawn is told in its place, and logged.
    """
    page = _tried("the page", html, content, workdir, splits, command)
    if page:
        write_atomically(workdir / "report.html", page)


def html(content: dict, workdir: Path, splits: Splits, command: str = "") -> str:
    """Return the text of report.html, see `write`."""
    values = {
        "code": _code(),
        "artifacts": _artifacts(content, workdir),
        "promises": _tried("what was asked for", promises, content) or [],
        "plots": _plots(content, workdir),
        "answered": _tried("the answers", _answered, content, workdir),
        "differing": _tried("the examples", _differing, content, workdir, splits),
        "command": command,
        "config": json.dumps(shortened(content["experiment"]), indent=2, ensure_ascii=False),
    }
    return rendered("report.html.j2", _FILTERS, {**content, **values})


def _code() -> dict[str, str]:
    """Return the page's own script and style, and the hash by which it lets the script run."""
    script, style = (source(f"report.{kind}") for kind in ("js", "css"))
    digest = hashlib.sha256(script.encode()).digest()
    return {
        "script": Markup(script),
        "script_hash": base64.b64encode(digest).decode(),
        "style": Markup(style),
    }


def _artifacts(content: dict, workdir: Path) -> dict[str, Any]:
    """Return the `columns` of the table of artifacts, and those of them that the page speaks of."""
    return {
        "columns": columns(content["rows"]),
        "best": numbers.best(content),
        "baseline": numbers.float_row(content["rows"]),
        "probed": numbers.probed(content),
        "keras_files": {path.stem for path in (workdir / "artifacts").glob("*.keras")},
    }


def _tried(what: str, make: Callable, *args: Any) -> Any:
    """Return what `make` returns, None where it fails: no plot is worth a run's other reports."""
    try:
        return make(*args)
    except Exception:
        _LOG.warning("report.html: without %s, which failed.", what, exc_info=True)
        return None


def _plots(content: dict, workdir: Path) -> dict[str, Markup | None]:
    """Return each plot as an <svg>, "" where there is nothing to draw, None where it failed."""
    rows, stages, best = content["rows"], content["stages"], numbers.best(content)
    sure = _read(workdir, best)
    bins = _tried("the reliability", verdicts.reliability, sure) if sure else []
    wanted: dict[str, tuple[Callable, tuple]] = {
        "size": (charts.trade_off, (rows, "gzip_bytes", "bytes gzipped")),
        "latency": (charts.trade_off, (rows, "latency_median_us", "µs", LATENCY_NOISE)),
        "layers": (lambda row: charts.layers(row) if row else "", (best,)),
        "noise": (
            lambda row: charts.noise(row, MOST_DB) if row else "",
            (numbers.probed(content),),
        ),
        "curves": (training.curves, (stages,)),
        "weights": (training.weights, (stages,)),
        "reliability": (training.reliability, (bins,)),
    }
    drawn = {
        name: _tried(f"the plot of {name}", *call[:1], *call[1]) for name, call in wanted.items()
    }
    return {name: text if text is None else Markup(text) for name, text in drawn.items()}


def _read(workdir: Path, row: dict | None) -> answers.Answers | None:
    return answers.read(workdir / row["stage"], row["variant"]) if row else None


def _answered(content: dict, workdir: Path) -> dict | None:
    """Return the confusions of the best artifact, and how far its confidence is from the truth."""
    best, names = numbers.best(content), content["data"]["class_names"]
    found = _read(workdir, best)
    if not best or found is None:
        return None
    baseline = numbers.float_row(content["rows"])
    other = _read(workdir, baseline)
    return {
        "artifact": name_of(best),
        **_matrix(found, len(names)),
        "confused": verdicts.most_confused(found, names),
        "error": verdicts.calibration_error(verdicts.reliability(found)),
        "baseline": baseline and name_of(baseline),
        "baseline_error": other and verdicts.calibration_error(verdicts.reliability(other)),
    }


def _matrix(found: answers.Answers, classes: int) -> dict:
    """Return the confusions as `matrix` and `shares` of few classes, as `picture` of many."""
    shown: dict[str, Any] = {"matrix": None, "shares": None, "picture": None}
    if classes > _PICTURED:
        return shown
    matrix = verdicts.confusion(found, classes)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if classes > _SPELLED_OUT:
        return shown | {"picture": examples.matrix_png(shares)}
    return shown | {"matrix": matrix.tolist(), "shares": shares.tolist()}


def _differing(content: dict, workdir: Path, splits: Splits) -> dict | None:
    """Return what the last stage's best artifact alone has wrong, against the first float one."""
    rows, compressed = content["rows"], numbers.compressed(content)
    if compressed is None:
        return None
    reference = numbers.float_row(rows) or {"stage": rows[0]["stage"], "variant": answers.KERAS}
    before, after = (_read(workdir, row) for row in (reference, compressed))
    if before is None or after is None or reference == compressed:
        return None
    names = splits.spec.class_names
    found = comparison.compared([before.logits, after.logits], after.labels, names)
    wrong = [i for i in verdicts.only_wrong(before, after) if i < _LOOKED_AT][:_EXAMPLES]
    taken = examples.taken(splits.test, wrong, splits.spec.normalisation)
    shown = {i: examples.drawn(splits.spec.front_end, each) for i, each in taken.items()}
    return {
        "reference": name_of(reference),
        "compressed": name_of(compressed),
        "only_right": found["only_right"],
        "p_value": found["p_value"],
        "examples": [
            {
                "index": index,
                "true": names[int(after.labels[index])],
                "answers": [_answer(side.logits[index], names) for side in (before, after)],
                "shown": shown.get(index, {}),
            }
            for index in wrong
        ],
    }


def _answer(logits: np.ndarray, names: tuple[str, ...]) -> dict:
    shares = comparison.probabilities(np.nan_to_num(logits)[None])[0]
    return {"class": names[int(shares.argmax())], "probability": float(shares.max())}
