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
    from tfopt import flatbuffer, micro

    content = read(args.file)
    graph = flatbuffer.read(content)
    plan = micro.plan(graph)
    found = {
        "file": str(args.file),
        "flash": len(content),
        "arena": plan and asdict(plan),
        "refused": micro.refusals(graph),
    }
    found["missed"] = _missed(found, graph.kernels(), args.flash, args.arena)
    if args.c:
        name = re.sub(r"\W", "_", args.file.stem)
        name = f"_{name}" if name[:1].isdigit() else name
        header, source = micro.c_array(content, name)
        write_atomically(args.c / f"{name}.h", header)
        write_atomically(args.c / f"{name}.c", source)
        found["c"] = [str(args.c / f"{name}.{suffix}") for suffix in "hc"]
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return int(bool(found["refused"] or found["missed"]))


def read(path: Path) -> bytes:
    """Return the bytes of a .tflite file; raise ConfigError where it isn't one."""
    from tfopt import flatbuffer

    try:
        content = path.read_bytes()
        flatbuffer.read(content)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"can't read {path}: {error}") from error
    return content


def _missed(found: dict, kernels: tuple, flash: int | None, arena: int | None) -> list[str]:
    """Return a sentence for each budget that is missed, with the layer to shrink."""
    missed = []
    if flash is not None and found["flash"] > flash:
        largest = max(kernels, key=lambda kernel: kernel.size, default=None)
        missed.append(
            f"flash: {found['flash'] - flash:,} bytes more than {flash:,}"
            + (f"; the largest kernel is that of {largest.name!r}." if largest else ".")
        )
    plan = found["arena"]
    if arena is not None and plan is None:
        missed.append("arena: not known of a model with loops or branches.")
    elif arena is not None and plan["bytes"] > arena:
        missed.append(
            f"arena: {plan['bytes'] - arena:,} bytes more than {arena:,}; most are alive at "
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
        ]
    runs = not found["refused"]
    rows.append(("runs in TensorFlow Lite Micro", "yes" if runs else "no"))
    rows += [("written", path) for path in found.get("c", [])]
    reasons = [f"TensorFlow Lite Micro refuses {reason}." for reason in found["refused"]]
    return "\n".join([table(rows, ("", found["file"])), *reasons, *found["missed"]])
