"""Measure the latency of .tflite files side by side: threads, XNNPACK, first inference, memory."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError
from tfopt.tables import table
from tfopt.tflite.opened import check_is_one

_HEADS = ("file", "threads", "XNNPACK", "median µs", "p90 µs", "p99 µs", "of the first (rounds)")
_OPERATORS = ("operator", "mean µs", "of the profiled time")
_SHOWN = 20
_COLD = ("file", "XNNPACK", "bytes", "load µs", "first inference µs", "memory, MB")


def main(argv: list[str]) -> int:
    """Measure the files that `argv` names; return 0."""
    parser = argparse.ArgumentParser(
        prog="tfopt benchmark",
        description=__doc__,
        epilog="Files take turns in every round, so that a slow minute of the machine is that of "
        "all. Load, first inference and memory are of a process of its own, on one thread.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tflite")
    parser.add_argument("--runs", type=int, default=300, help="of each file in all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", default="1", help="a list, as in 1,2,4")
    parser.add_argument("--xnnpack", choices=("on", "off", "both"), default="on")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--operators", action="store_true", help="the time of each operator too")
    parser.add_argument(
        "--benchmark_model",
        metavar="PATH",
        default="",
        help="that by TensorFlow's tool of this name and not by LiteRT's profiler",
    )
    args = parser.parse_args(argv)
    threads = _checked(args)
    # Deferred, so that help and bad input are answered at once.
    from tfopt import benchmark, operators
    from tfopt.report import environment

    delegates = {"on": [True], "off": [False], "both": [True, False]}[args.xnnpack]
    alone, settings = (
        [
            benchmark.Setting(path, count, xnnpack)
            for count in counts
            for xnnpack in delegates
            for path in args.files
        ]
        for counts in ([1], threads)
    )
    by_operator = args.operators or args.benchmark_model
    tool = operators.chosen(args.benchmark_model) if by_operator else ""
    cold = [_cold(setting) for setting in alone]
    latencies = benchmark.side_by_side(settings, runs=args.runs, rounds=args.rounds)
    warm = _warm(settings, latencies, len(args.files))
    found = {"latency": warm, "cold": cold, "environment": environment()}
    if by_operator:
        found["operators"] = [_by_operator(setting, args.runs, tool) for setting in settings]
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def _cold(setting: Any) -> dict:
    from tfopt.benchmark import cold_in_child

    return {
        "file": str(setting.path),
        "xnnpack": setting.xnnpack,
        "bytes": setting.path.stat().st_size,
        **asdict(cold_in_child(setting)),
    }


def _by_operator(setting: Any, runs: int, tool: str) -> dict:
    from tfopt.operators import measured

    return {
        "file": str(setting.path),
        "threads": setting.threads,
        "xnnpack": setting.xnnpack,
        **asdict(measured(setting, runs, tool)),
    }


def _warm(settings: list, latencies: list, files: int) -> list[dict]:
    """Return the figures of each of `settings`, in which every `files` are run in one way.

    The first of these is the reference of the others.
    """
    from tfopt.benchmark import figures

    return [
        {
            "file": str(setting.path),
            "threads": setting.threads,
            "xnnpack": setting.xnnpack,
            **figures(found, latencies[index - index % files]),
        }
        for index, (setting, found) in enumerate(zip(settings, latencies, strict=True))
    ]


def _checked(args: argparse.Namespace) -> list[int]:
    """Return the numbers of threads; raise ConfigError for what can't be measured."""
    for path in args.files:
        if not path.is_file():
            raise ConfigError(f"expected .tflite files, received {path}, which is no file.")
        check_is_one(path)
    counts = args.threads.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise ConfigError(
            f"--threads: expected numbers of at least 1 as in 1,2,4, received {args.threads!r}."
        )
    if args.rounds < 1:
        raise ConfigError(f"--rounds: expected at least 1, received {args.rounds}.")
    if args.runs < args.rounds:
        raise ConfigError(
            f"--runs: expected at least one in each of {args.rounds} rounds, received {args.runs}."
        )
    return [int(count) for count in counts]


def _text(found: dict) -> str:
    warm = [
        (
            row["file"],
            f"{row['threads']}",
            "on" if row["xnnpack"] else "off",
            *(f"{row[name]:,.1f}" for name in ("median_us", "p90_us", "p99_us")),
            "{:.2f} ({:.2f}-{:.2f})".format(*row["ratio"]),
        )
        for row in found["latency"]
    ]
    cold = [
        (
            row["file"],
            "on" if row["xnnpack"] else "off",
            f"{row['bytes']:,}",
            f"{row['load_us']:,.0f}",
            f"{row['first_us']:,.0f}",
            "–" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.1f}",
        )
        for row in found["cold"]
    ]
    tables = [table(warm, _HEADS), table(cold, _COLD), *map(_operators, found.get("operators", []))]
    return "\n\n".join(tables)


def _operators(found: dict) -> str:
    """Return the operators of a file that take most, and the rest of an inference."""
    whole = found["inference_us"]
    known = sum(operator["mean_us"] for operator in found["operators"])
    each = sorted(((o["mean_us"], o["name"]) for o in found["operators"]), reverse=True)
    rest = each[_SHOWN:]
    lines = [
        *((name, micros) for micros, name in each[:_SHOWN]),
        *([(f"{len(rest)} others", sum(micros for micros, _ in rest))] if rest else []),
        ("between and around them", max(whole - known, 0)),
        ("an inference, while it is profiled", whole),
    ]
    cells = [(name, f"{micros:,.1f}", f"{micros / whole:.1%}") for name, micros in lines]
    xnnpack = "with" if found["xnnpack"] else "without"
    head = f"{found['file']}, threads: {found['threads']}, {xnnpack} XNNPACK, by {found['source']}"
    told = [f"Its operators take {known / whole:.0%} of the profiled time{_why(found['source'])}"]
    return "\n\n".join([head, *(told if 2 * known < whole else []), table(cells, _OPERATORS)])


def _why(source: str) -> str:
    from tfopt.operators import PROFILER

    if source != PROFILER:
        return "."
    return (
        ": LiteRT's profiler rounds each down to whole µs; TensorFlow's tool, by "
        "--benchmark_model=PATH, counts finer."
    )
