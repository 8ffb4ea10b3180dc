"""Check a .tflite for a microcontroller: operators, arena, flash, and the file as a C array."""

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

from tfopt.checkpoint import write_atomically
from tfopt.errors import ConfigError
from tfopt.tables import table


def main(argv: list[str]) -> int:
    """Check the file that `argv` names; return 0, or 1 where it won't run or is over a budget."""
    parser = argparse.ArgumentParser(
        prog="tfopt micro",
        description=__doc__,
        epilog="The arena is that of the activations; TensorFlow Lite Micro's own structures and "
        "the scratch of its kernels come on top.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("--flash", type=int, metavar="BYTES", help="the budget of the file")
    parser.add_argument("--arena", type=int, metavar="BYTES", help="the budget of the arena")
    parser.add_argument("--c", type=Path, metavar="FOLDER", help="write a C array there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    # Deferred, so that help is answered at once.
    from tfopt import micro
    from tfopt.opened import opened

    for name, budget in (("flash", args.flash), ("arena", args.arena)):
        if budget is not None and budget < 1:
            raise ConfigError(f"--{name}: expected bytes, at least 1, received {budget}.")
    content, graph = opened(args.file)
    refused = micro.refusals(graph)
    plan = None if refused else micro.plan(graph)
    largest = max(graph.kernels(), key=micro.stored_bytes, default=None)
    found = {
        "file": str(args.file),
        "flash": len(content),
        "arena": plan and asdict(plan),
        "refused": refused,
    }
    found["missed"] = _missed(found, largest and largest.name, args.flash, args.arena)
    if args.c:
        found["c"] = _written(args.c, args.file.stem, content)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return int(bool(found["refused"] or found["missed"]))


def _written(folder: Path, stem: str, content: bytes) -> list[str]:
    """Write the C header and source to `folder`; return their paths."""
    from tfopt.micro import c_array

    if folder.suffix in (".c", ".h", ".cc") or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"--c: expected a folder, received {folder}; its files get their names.")
    # Of C's letters alone, and no word of C itself.
    name = re.sub(r"\W|^(?=\d)", "_", f"{stem}_tflite", flags=re.ASCII)
    paths = [folder / f"{name}.{suffix}" for suffix in "hc"]
    try:
        for path, text in zip(paths, c_array(content, name), strict=True):
            write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"--c: can't write to {folder}: {error.strerror}.") from error
    return [str(path) for path in paths]


def _missed(found: dict, largest: str | None, flash: int | None, arena: int | None) -> list[str]:
    """Return a sentence for each budget that is missed, with the layer to shrink."""
    missed = []
    if flash is not None and found["flash"] > flash:
        missed.append(
            f"flash: {found['flash'] - flash:,} bytes more than {flash:,}"
            + (f"; the largest kernel is that of {largest!r}." if largest else ".")
        )
    plan = found["arena"]
    taken = plan["bytes"] + plan["states"] if plan else 0
    if arena is not None and found["refused"]:
        missed.append("arena: it isn't planned for a file that can't run there.")
    elif arena is not None and plan is None:
        missed.append("arena: it isn't planned for a model with subgraphs; leave --arena out.")
    elif arena is not None and taken > arena:
        missed.append(
            f"arena: {taken - arena:,} bytes more than {arena:,}; most are alive at "
            f"{plan['peak_at']!r}, shrink what it reads or writes."
        )
    return missed


def _text(found: dict) -> str:
    plan = found["arena"]
    rows = [("flash, bytes", f"{found['flash']:,}")]
    if plan:
        rows += [
            ("arena of activations, bytes", f"{plan['bytes']:,}"),
            ("most bytes alive at once", f"{plan['peak']:,}"),
            ("at", plan["peak_at"]),
            ("states, bytes", f"{plan['states']:,}"),
        ]
    runs = not found["refused"]
    rows.append(("runs in TensorFlow Lite Micro", "yes" if runs else "no"))
    rows += [("written", path) for path in found.get("c", [])]
    reasons = [
        f"TensorFlow Lite Micro refuses {', '.join(operators)}: {reason}."
        for reason, operators in _by_reason(found["refused"]).items()
    ]
    remedy = [] if runs else ["An Int8() artifact computes with integers throughout."]
    return "\n".join([table(rows, ("", found["file"])), *reasons, *remedy, *found["missed"]])


def _by_reason(refused: list[str]) -> dict[str, list[str]]:
    """Return the operators that are refused for each reason."""
    found: dict[str, list[str]] = {}
    for each in refused:
        operator, _, reason = each.partition(": ")
        found.setdefault(reason, []).append(operator)
    return found
