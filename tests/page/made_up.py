"""A run that never was, with all that a page can show."""

import math

import numpy as np

from tests.test_report import DATA, FACTS, KERNEL, NOISE, PRUNED, row
from tfopt import pareto, report
from tfopt.answers import Answers
from tfopt.data import Image, from_arrays
from tfopt.page.histograms import histograms

EVIL = "<script>alert(1)</script>"


def logits(labels, classes, wrong, seed=0):
    """Return logits that are right but for one example in `wrong`."""
    made = np.random.default_rng(seed).normal(0, 0.5, (len(labels), classes)).astype(np.float32)
    named = np.where(np.arange(len(labels)) % wrong == 1, (labels + 1) % classes, labels)
    made[np.arange(len(labels)), named] += 4
    return made


def stage(name, facts, epochs):
    drawn = np.random.default_rng(1).normal(0, 0.1, 500)
    history = [
        {"loss": 1 / (n + 1), "accuracy": 0.5, "val_loss": 2 / (n + 1), "val_accuracy": 0.6}
        for n in range(epochs)
    ]
    return {
        "name": name,
        "seconds": 12.3,
        "waited": 0.01,
        "mesh": None,
        "before": FACTS,
        "after": facts,
        "left_float": {},
        "history": history,
        "weights": histograms(drawn, np.where(abs(drawn) < 0.1, 0, drawn)),
    }


FLOAT = [{**KERNEL, "dtype": "float32", "zeros": 0}]
ROWS = [
    row("train", "float32", accuracy=0.97, gzip_bytes=90_000, kernels=FLOAT, layers=[]),
    row("train", "int8", accuracy=0.95, sparsity=0.0, latency_median_us=900.0),
    row("prune", "int8", accuracy=0.965, layers=[NOISE, {**NOISE, "layer": EVIL}]),
]


def nine_rows():
    """Return as many rows as configs/digits.py has, with cells as long, in no order at all."""
    half = [{**KERNEL, "dtype": "float16"}]
    # Sizes that are in another order as text.
    made = [
        row("prune", "float16", gzip_bytes=57_273, arena_bytes=None, kernels=half),
        row("train", "dynamic", gzip_bytes=9_000, accuracy=0.98, kernels=[*FLOAT, KERNEL]),
        row("quantize", "int8", gzip_bytes=10_000, accuracy=0.985, latency_median_us=990.0),
        row("train", "float32", gzip_bytes=290_355, arena_bytes=12_288, kernels=FLOAT),
        row("prune", "int8", gzip_bytes=33_165),
        row("train", "float16", gzip_bytes=146_621, arena_bytes=None, kernels=half),
        row("prune", "dynamic", gzip_bytes=32_453, kernels=[*FLOAT, KERNEL]),
        row("prune", "float32", gzip_bytes=90_101, arena_bytes=12_288, kernels=FLOAT),
        row("train", "int8", gzip_bytes=81_575),
    ]
    return [{"arena_bytes": 3_072, **each} for each in made]


def run(folder, names=("zero", EVIL, "two"), rows=ROWS, **changes):
    """Write the answers of a run to `folder`; return the content of its report.json and splits."""
    experiment = {
        "name": f"made up {EVIL}",
        "min_agreement": 0.95,
        "stages": [
            {"name": "train", "epochs": 3},
            {"name": "prune", "sparsity": 0.75, "pattern": {"type": "Unstructured"}},
        ],
    }
    content = {
        "tfopt": "0",
        "ended_by": "",
        "best": report.name_of(best) if (best := pareto.best(rows)) else "",
        "config_hash": "ab12",
        "experiment": experiment,
        "data": {**DATA, "class_names": list(names)},
        "environment": report.environment(),
        "stages": [stage("train", FACTS, 3), stage("prune", {**PRUNED, "sparsity": 0.75}, 2)],
        "rows": [dict(each) for each in rows],  # which tests change
        **changes,
    }
    labels = np.arange(max(120, 2 * len(names))) % len(names)
    for index, each in enumerate(rows):
        found = logits(labels, len(names), 7 + index, index)
        Answers(found, labels).write(folder / each["stage"], each["variant"])
    return content, splits(labels, tuple(names))


def splits(labels, names, front_end=None):
    pixels = np.random.default_rng(2).integers(0, 256, (len(labels), 8, 8, 1), dtype=np.uint8)
    return from_arrays(
        train=(255 - pixels, labels),
        test=(pixels, labels),
        class_names=names,
        batch_size=16,
        validation=0.2,
        front_end=front_end or Image(),
    )


def broken(content):
    """Return `content` with numbers that are none, as of a run that went wrong."""
    rows = [
        {**each, "accuracy": math.nan, "latency_median_us": math.inf} for each in content["rows"]
    ]
    return content | {"rows": [content["rows"][0], *rows[1:]]}
