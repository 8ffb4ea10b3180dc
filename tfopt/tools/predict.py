"""Ask a .tflite of tfopt's about images, sounds, texts or features; it needs no TensorFlow."""

import argparse
import json
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError, RunError
from tfopt.isolated import Child
from tfopt.tables import table


def main(argv: list[str]) -> int:
    """Answer what `argv` asks; return 0."""
    parser = argparse.ArgumentParser(
        prog="tfopt predict",
        description=__doc__,
        epilog="The file's metadata say which of these it takes. An .npy file holds examples as "
        "the data set has them, not yet normalised, one or several.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("inputs", nargs="+", metavar="image.png|sound.wav|text|features.npy")
    parser.add_argument("--top", type=int, default=3, help="how many classes to name")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    if args.top < 1:
        raise ConfigError(f"--top: expected at least 1, received {args.top}.")
    with Child() as child:
        found = child.call(predicted, args.file, args.inputs, args.top)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def predicted(path: Path, inputs: list[str], top: int) -> list[dict]:
    """Return for each example of `inputs` its `top` classes with their probabilities."""
    # Deferred, since the child needs them and the parent doesn't.
    import numpy as np

    from tfopt import raw
    from tfopt.export import Artifact
    from tfopt.runner import Runner
    from tfopt.tflite.opened import described

    content, description = described(path)
    run, found = Runner(Artifact.of(path, content), threads=1), []
    taken = [tuple(map(int, details["shape"]))[1:] for details in run.inputs.values()]
    if taken != [description.shape]:
        raise RunError(
            f"{path}: expected one input of shape {description.shape}, as its metadata say, "
            f"received inputs of shapes {taken}; the file is damaged."
        )
    for given in inputs:
        for example in raw.examples(given, description):
            if not np.isfinite(example).all():
                raise ConfigError(f"{given}: expected finite numbers, received NaN or infinity.")
            (logits,) = run(description.normalisation(np.float32(example))[None])
            found.append({"input": given, "classes": _classes(logits, description, top)})
    return found


def _classes(logits: Any, description: Any, top: int) -> list[dict]:
    import numpy as np

    names = description.class_names
    if logits.shape != (len(names),) or not np.isfinite(logits).all():
        raise RunError(
            f"expected {len(names)} finite numbers, one for each class, received "
            f"{logits.tolist()[:3]} and so on, {logits.size} in all; the file is damaged."
        )
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:top]
    return [{"class": names[i], "probability": float(shares[i])} for i in order]


def _text(found: list[dict]) -> str:
    rows = [
        (each["input"] if first else "", _line(guess["class"]), f"{guess['probability']:.1%}")
        for each in found
        for first, guess in ((guess is each["classes"][0], guess) for guess in each["classes"])
    ]
    return table(rows, ("input", "class", "probability"), 2)


def _line(name: str) -> str:
    return name if name.isprintable() and name.strip() else repr(name)
