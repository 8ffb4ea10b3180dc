"""Compare two .tflite files on one data set: accuracy, McNemar's test, where they differ."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfopt.command_line import parse
from tfopt.errors import ConfigError
from tfopt.tables import table
from tfopt.tflite.opened import opened

_SURE = 0.05


def main(argv: list[str]) -> int:
    """Compare the files that `argv` names; return 0."""
    parser = argparse.ArgumentParser(
        prog="tfopt compare",
        description=__doc__,
        usage="tfopt compare A.tflite B.tflite --config=NAME [--config.data.FIELD=VALUE] [options]",
        epilog="All other flags are those of a run: --config=NAME says which data.",
    )
    parser.add_argument("files", type=Path, nargs=2, metavar="FILE.tflite")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--most", type=int, default=10, help="how many examples to list")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    flags, others = parser.parse_known_args(argv)
    experiment, _ = parse(others)
    if not any(flag.lstrip("-").split("=")[0] == "config" for flag in others):
        raise ConfigError(
            "--config: expected the experiment whose data to compare on, received none."
        )
    if flags.most < 0:
        raise ConfigError(f"--most: expected at least 0, received {flags.most}.")
    files = {path: opened(path) for path in flags.files}
    # Deferred, so that help and bad input are answered at once.
    import numpy as np

    from tfopt.comparison import compared
    from tfopt.export import Artifact

    splits = experiment.data.load(experiment.batch_size)
    for path, (_, graph) in files.items():
        _check_fits(path, graph, splits.spec)
    artifacts = [Artifact.of(path, files[path][0]) for path in flags.files]
    found: list[list] = [[], [], []]
    batches = getattr(splits, flags.split)
    runs = [_run(artifact, next(iter(batches))[0].numpy()) for artifact in artifacts]
    for examples, labels, weights in batches:
        real = weights.numpy().reshape(-1) > 0
        found[2].append(labels.numpy().reshape(-1)[real])
        for run, outputs in zip(runs, found, strict=False):
            outputs.append(run(examples.numpy())[real])
    *outputs, labels = (np.concatenate(each) for each in found)
    result = {
        "files": [str(path) for path in flags.files],
        "split": flags.split,
        **compared(outputs, labels, splits.spec.class_names, flags.most),
    }
    print(json.dumps(result, indent=2) if flags.json else _text(result))
    return 0


def _run(artifact: Any, batch: Any) -> Callable:
    """Return what gives the outputs for batches like `batch`, one by one where it must."""
    import numpy as np

    from tfopt.runner import ArtifactError, Runner

    threads = os.cpu_count() or 1
    try:
        run = Runner(artifact, threads=threads)
        run(batch)
        return run
    except ArtifactError:
        alone = Runner(artifact, threads=threads)
        return lambda examples: np.concatenate([alone(one[None]) for one in examples])


def _check_fits(path: Path, graph: Any, spec: Any) -> None:
    taken = [tensor.shape[1:] for tensor in graph.inputs]
    given = [tensor.shape[1:] for tensor in graph.outputs]
    if taken != [spec.shape] or given != [(spec.classes,)]:
        raise ConfigError(
            f"{path}: expected a file that takes examples of shape {spec.shape} and gives "
            f"{spec.classes} numbers, as the data has classes, received one that takes {taken} and "
            f"gives {given}; compare on the data that it was made for."
        )


def _text(found: dict) -> str:
    names = [Path(file).stem for file in found["files"]]
    if names[0] == names[1]:
        names = found["files"]
    accuracy = [
        (name, f"{share:.2%}", f"{low:.2%} to {high:.2%}", f"{alone:,}")
        for name, (share, low, high), alone in zip(
            names, found["accuracy"], found["only_right"], strict=True
        )
    ]
    classes = [
        (each["name"], f"{each['examples']:,}", *(f"{share:.2%}" for share in each["accuracy"]))
        for each in found["classes"]
    ]
    furthest = [
        (f"{each['index']:,}", each["label"], *each["named"], f"{each['distance']:.3f}")
        for each in found["furthest"]
    ]
    broken = [
        f"{name}: of {count:,} its numbers aren't finite, which counts as wrong."
        for name, count in zip(names, found["not_finite"], strict=True)
        if count
    ]
    better = names[int(found["only_right"][1] > found["only_right"][0])]
    sure = found["p_value"] < _SURE
    return "\n\n".join(
        [
            f"{found['examples']:,} examples of the {found['split']} split; the same class on "
            f"{found['agreement']:.2%}",
            table(accuracy, ("file", "accuracy", "95% interval", "right alone")),
            *broken,
            f"McNemar's test: p = {found['p_value']:.3g}; "
            + (f"{better} is better." if sure else "that may well be luck."),
            table(classes, ("class", "examples", *names)),
            table(furthest, ("furthest apart on", "is", *names, "distance")),
        ]
    )
