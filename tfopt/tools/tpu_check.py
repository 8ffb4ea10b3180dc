"""Compile each stage's training step for TPUs, on a machine without one."""

import argparse
import importlib.util
import json
import sys
from typing import Any

import tabulate

from tfopt.command_line import parse
from tfopt.errors import ConfigError
from tfopt.tpu.chips import TOPOLOGIES, find

_HEADERS = (
    "stage",
    "topology",
    "batch a core",
    "compiles",
    "weights",
    "optimizer",
    "activations",
    "program",
    "of HBM",
    "GFLOPs",
    "MB moved",
    "all-reduces",
    "step ms",
    "examples/s",
    "bound by",
    "largest batch",
)


def main(argv: list[str]) -> int:
    """Check the experiment that `argv` names; return 0, or 1 where a stage won't be."""
    parser = argparse.ArgumentParser(
        prog="tfopt tpu_check", description=__doc__, epilog="All other flags are those of a run."
    )
    parser.add_argument(
        "--topology",
        default="v5e:2x4",
        help=f"one or several, with commas between: {', '.join(TOPOLOGIES)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--largest_batch", action="store_true", help="search it too, which takes minutes a stage"
    )
    flags, others = parser.parse_known_args(argv)
    slices = [find(name) for name in flags.topology.split(",")]
    if importlib.util.find_spec("jax") is None:
        raise ConfigError(
            "expected Google's TPU compiler, found no package jax; pip install 'tfopt[tpu-check]'."
        )
    experiment, _ = parse(others)
    for each in slices:
        experiment.check_replicas(each.replicas)
    # Deferred, so that help and bad input are answered at once.
    from tfopt.tpu.check import check

    rows = []
    for row in check(experiment, slices, largest=flags.largest_batch):
        print(f"{row.stage} on {row.topology}: {row.refused or 'compiles'}", file=sys.stderr)
        rows.append(row)
    print(json.dumps([row.to_json() for row in rows], indent=2) if flags.json else _table(rows))
    return int(any(row.refused for row in rows))


def _table(rows: list) -> str:
    return tabulate.tabulate(
        [_cells(row) for row in rows], _HEADERS, tablefmt="github", disable_numparse=True
    )


def _cells(row: Any) -> tuple[str, ...]:
    place = (row.stage, row.topology, f"{row.batch:,}")
    if row.refused:
        return (*place, f"no: {row.refused}")
    sizes = row.weights_bytes, row.optimizer_bytes, row.activations_bytes, row.program_bytes
    return (
        *place,
        "yes",
        *(f"{size / 2**20:,.1f} MiB" for size in sizes),
        f"{row.used_bytes / row.hbm:.1%}",
        f"{row.flops / 1e9:,.2f}",
        f"{row.bytes / 1e6:,.0f}",
        f"{row.all_reduces} ({row.reduced_bytes / 1e6:,.2f} MB)",
        f"{row.step_seconds * 1e3:,.2f}",
        f"{row.examples_per_second:,.0f}",
        row.bound_by,
        f"{row.largest_batch:,}" if row.largest_batch else "",
    )
