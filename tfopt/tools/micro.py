"""Check a .tflite for a microcontroller: operators, arena, flash, and the file as a C array."""

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

from tfopt.errors import ConfigError
from tfopt.limits import Budget
from tfopt.tables import table

_UNITS = {"": 1, "k": 1024, "m": 1024**2}


def main(argv: list[str]) -> int:
    """Check the file that `argv` names; return 0, or 1 where it won't run or is over a budget."""
    parser = argparse.ArgumentParser(
        prog="tfopt micro",
        description=__doc__,
        epilog="The arena is that of the activations; TensorFlow Lite Micro's own structures and "
        "the scratch of its kernels come on top.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("--flash", metavar="BYTES", help="the budget of the file, as 64k or 1M")
    parser.add_argument("--arena", metavar="BYTES", help="the budget of the arena")
    parser.add_argument("--c", type=Path, metavar="FOLDER", help="write a C array there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    # Deferred, so that help is answered at once.
    from tfopt.tflite import micro
    from tfopt.tflite.opened import opened, readable

    budget = Budget(flash=_size("flash", args.flash), arena=_size("arena", args.arena))
    content, graph = opened(args.file)
    with readable(args.file):
        fit = micro.fit(content, graph)
    found = {"file": str(args.file), **asdict(fit), "missed": fit.missed(budget)}
    del found["largest"]
    if args.c:
        found["c"] = _written(args.c, args.file, content)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return int(bool(found["refused"] or found["missed"]))


def _size(name: str, text: str | None) -> int:
    """Return the bytes that the flag `name` says, 0 where it was left out."""
    if text is None:
        return 0
    read = re.fullmatch(r"(\d+)([kKmM]?)", text)
    size = int(read[1]) * _UNITS[read[2].lower()] if read else 0
    if size < 1:
        raise ConfigError(
            f"--{name}: expected bytes, at least 1, as 65536, 64k or 1M, received {text!r}."
        )
    return size


def _written(folder: Path, file: Path, content: bytes) -> list[str]:
    """Write the C header and source of `file` to `folder`; return their paths."""
    from tfopt.tflite.c_array import write_c_array

    if folder.suffix in (".c", ".h", ".cc") or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"--c: expected a folder, received {folder}; its files get their names.")
    try:
        # With a suffix of its own, as a file may have the name of a word of C.
        paths = write_c_array(content, folder, f"{file.stem}_tflite", file.name)
    except OSError as error:
        raise ConfigError(f"--c: can't write to {folder}: {error.strerror}.") from error
    return [str(path) for path in paths]


def _text(found: dict) -> str:
    plan = found["arena"]
    rows = [("flash, bytes", f"{found['flash']:,}")]
    if found["attached"]:
        rows.append(("of them attached files, bytes", f"{found['attached']:,}"))
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
    remedy = (
        [] if runs else ["An Int8() artifact, not a sparse one, computes with integers throughout."]
    )
    return "\n".join([table(rows, ("", found["file"])), *reasons, *remedy, *found["missed"]])


def _by_reason(refused: list[str]) -> dict[str, list[str]]:
    """Return the operators that are refused for each reason."""
    found: dict[str, list[str]] = {}
    for each in refused:
        operator, _, reason = each.partition(": ")
        found.setdefault(reason, []).append(operator)
    return found
