"""Accuracy against bytes: every technique on one model, one data set and one training budget.

    python tests/benchmarks/quality.py                   # handwritten digits
    python tests/benchmarks/quality.py --data=DIR        # an image folder, such as CIFAR-10
    python tests/benchmarks/quality.py --data=DIR --model=mobilenet_v1_025 --only='*QAT'

What the recipes are is in recipes.py. What is quantized after training had all of the budget
to train; QAT, pruning, shrinking and clustering go on from a model that had two thirds of it,
and have the last third; `from scratch` has it to itself. Every figure is measured on the
.tflite. Run it again after a stop, or with another `--only`: it goes on where it was. Table and
plot, of all that is finished, are in the workdir.
"""

import argparse
import fnmatch
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib as mpl
import matplotlib.pyplot as plt
import recipes
import tabulate

from tfopt.config import Experiment
from tfopt.data import Augment, Digits, ImageFolder
from tfopt.errors import ConfigError, RunError
from tfopt.models import PRESETS, Saved
from tfopt.pipeline import run

HEADERS = ("technique", "accuracy", "gzipped", "bytes", "zeros", "median µs", "stage time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="an image folder; default: digits")
    parser.add_argument("--model", default="resnet8", choices=sorted(PRESETS))
    parser.add_argument("--epochs", type=int, default=15, help="the budget")
    parser.add_argument("--only", default="*", help="a pattern of the recipes' names")
    parser.add_argument("--workdir", default="runs/quality", type=Path)
    flags = parser.parse_args()
    mpl.use("agg")
    known = recipes.recipes(flags.epochs, saved(flags, "begun"))
    asked = {name: known[name] for name in fnmatch.filter(known, flags.only)}
    if not asked:
        parser.error(f"--only: expected a pattern of {', '.join(known)}, received {flags.only!r}.")
    for name, recipe in with_bases(asked, recipes.bases(flags.epochs)).items():
        do(name, recipe, flags)
    reports = {name: folder(name, flags) / "report.json" for name in known}
    rows = {
        name: row(path, sum(seconds(base, flags) for base in known[name].bases))
        for name, path in reports.items()
        if path.exists()
    }
    text = table(rows)
    (flags.workdir / "quality.md").write_text(text + "\n")
    (flags.workdir / "quality.json").write_text(json.dumps(rows, indent=2))
    plot(rows, flags.workdir / "quality.png")
    print(text)


def with_bases(asked: dict, bases: dict) -> dict:
    """Return the recipes in an order in which each comes after what it starts from."""
    ordered: dict = {}
    for name, recipe in asked.items():
        needed = {base: bases[base] for base in recipe.bases}
        ordered |= {**with_bases(needed, bases), name: recipe}
    return ordered


def do(name: str, recipe: "recipes.Recipe", flags: argparse.Namespace) -> None:
    """Carry the recipe out, unless it is finished in its workdir."""
    stages = recipe.stages or [recipes.Stage(name="as_it_is", epochs=0)]
    data = ImageFolder(path=flags.data, augment=Augment()) if flags.data else Digits()
    data.validation = 0.02 if flags.data else data.validation
    paths = tuple(saved(flags, base).path for base in recipe.bases)
    model = recipe.fused(paths, data) if paths else PRESETS[flags.model]
    run(
        Experiment(
            name=folder(name, flags).name,
            seed=recipe.seed,
            data=data,
            model=model,
            stages=stages,
            variants=[recipe.variant],
            batch_size=64 if flags.data else 32,
            min_agreement=0.0,
        ),
        folder(name, flags),
    )


def folder(name: str, flags: argparse.Namespace) -> Path:
    """Return the workdir of a recipe."""
    return flags.workdir / "".join(c if c.isalnum() else "_" for c in name)


def row(path: Path, shared: float) -> dict:
    """Return the last artifact's row in the report at `path`, with the stages' seconds.

    To these come the seconds of the bases that the recipe shares with no other.
    """
    report = json.loads(path.read_text())
    return {**report["rows"][-1], "seconds": shared + _trained_for(report)}


def seconds(base: str, flags: argparse.Namespace) -> float:
    """Return how long the stages of `base` took, 0 for one that many recipes start from."""
    path = folder(base, flags) / "report.json"
    return 0 if base in recipes.SHARED else _trained_for(json.loads(path.read_text()))


def _trained_for(report: dict) -> float:
    return sum(stage["seconds"] for stage in report["stages"])


def saved(flags: argparse.Namespace, base: str) -> Saved:
    """Return the trained model of `base`, to be loaded."""
    return Saved(path=str(folder(base, flags) / "train" / "model.h5"))


def table(rows: dict[str, dict]) -> str:
    """Return the rows as a Markdown table."""
    cells = [
        (
            name,
            f"{row['accuracy']:.2%}",
            f"{row['gzip_bytes']:,}",
            f"{row['bytes']:,}",
            f"{row['sparsity']:.1%}",
            f"{row['latency_median_us']:,.0f}",
            f"{row['seconds']:,.0f} s",
        )
        for name, row in rows.items()
    ]
    align = ("left", *["right"] * (len(HEADERS) - 1))
    return tabulate.tabulate(
        cells, HEADERS, tablefmt="github", disable_numparse=True, colalign=align
    )


def plot(rows: dict[str, dict], path: Path) -> None:
    """Draw accuracy against gzipped bytes, with a name at each point."""
    figure, axes = plt.subplots(figsize=(11, 7), layout="constrained")
    for name, row in rows.items():
        place = row["gzip_bytes"] / 1000, 100 * row["accuracy"]
        axes.plot(*place, "o")
        axes.annotate(name, place, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", xlabel="kB gzipped", ylabel="test accuracy of the .tflite, %")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, RunError) as wrong:
        sys.exit(f"quality.py: {wrong}")
