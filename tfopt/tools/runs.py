"""List the runs under a folder with their best artifacts, and mark the Pareto front over all."""

import argparse
import json
import logging
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError
from tfopt.pareto import LATENCY_NOISE, front
from tfopt.tables import table

_LOG = logging.getLogger(__name__)
_FIGURES = ("accuracy", "gzip_bytes", "bytes", "latency_median_us")
_OF_TRAINING = ("augment", "cache_dir", "memory_limit_mb", "validation")
_HEADS = ("run", "artifact", "accuracy", "gzipped", "bytes", "median µs", "on the front of")


@dataclass(frozen=True, slots=True)
class Found:
    """An artifact of a run.

    Two of them are comparable where `same` is equal, and their latencies where `machine` is too;
    `data` says it in short.
    """

    run: str
    data: str
    same: str
    machine: str
    row: dict


def main(argv: list[str]) -> int:
    """List the runs that `argv` asks for; return 0."""
    parser = argparse.ArgumentParser(prog="tfopt runs", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", default=Path("runs"))
    parser.add_argument("--all", action="store_true", help="every artifact, not the best of a run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args(argv)
    logging.basicConfig(format="tfopt runs: %(message)s")
    found = listed(args.folder, everything=args.all)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def listed(folder: Path, *, everything: bool = False) -> list[dict]:
    """Return the artifacts of all runs under `folder`, those of one data set together.

    Each has `data`, `run`, `artifact`, its figures, and `fronts`: of which of "size" (gzipped
    bytes) and "latency" it is on the Pareto front of its data set, against accuracy; latencies are
    compared on one machine, and less than `LATENCY_NOISE` apart they are equal. Without
    `everything` only those are returned that are on a front among the artifacts of their own run.
    Raises ConfigError where there is no run.
    """
    if not folder.is_dir():
        raise ConfigError(f"expected a folder with runs, received {folder}, which is none.")
    found = [each for path in sorted(folder.rglob("report.json")) for each in _read(path, folder)]
    if not found:
        raise ConfigError(
            f"expected at least one finished run under {folder}, received none; a run writes its "
            "report.json to its --workdir."
        )
    found = _told_apart(found)
    kept = []
    for same in dict.fromkeys(each.same for each in found):
        peers = [each for each in found if each.same == same]
        best = _fronts(peers)
        for run in dict.fromkeys(each.run for each in peers):
            own = [each for each in peers if each.run == run]
            kept += [
                _entry(each, best[id(each)])
                for each, of_own in zip(own, _fronts(own).values(), strict=True)
                if everything or of_own
            ]
    return sorted(kept, key=lambda entry: (entry["data"], entry["gzip_bytes"]))


def _read(path: Path, folder: Path) -> list[Found]:
    try:
        report = json.loads(path.read_text())
        spec, asked = report["data"], report["experiment"]["data"]
        ended = " (incomplete)" if report.get("ended_by") else ""
        run = f"{path.parent.relative_to(folder.parent)}{ended}"
        machine = json.dumps(report["environment"], sort_keys=True)
        return [_found(run, machine, asked, spec, row) for row in report["rows"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("left out %s, which isn't a report as tfopt writes it (%r).", path, error)
        return []


def _found(run: str, machine: str, asked: dict, spec: dict, row: dict) -> Found:
    # What only training sees makes no other test split.
    source = {name: value for name, value in asked.items() if name not in _OF_TRAINING}
    same = [source, spec["shape"], spec["class_names"], row["examples"]]
    shape, classes = "×".join(map(str, spec["shape"])), len(spec["class_names"])
    where = f" of {asked['path']}" if asked.get("path") else ""
    name = f"{asked['type'].split('.')[-1]}{where}"
    return Found(
        run=run,
        data=f"{name}, {shape}, {classes} classes, {row['examples']:,} test examples",
        same=json.dumps(same, sort_keys=True),
        machine=machine,
        row={
            "artifact": f"{row['stage']}_{row['variant']}",
            **{figure: row[figure] for figure in _FIGURES},
        },
    )


def _told_apart(found: list[Found]) -> list[Found]:
    """Return `found` with `data` that also says in what sources of one name differ."""
    told = {}
    for data in {each.data for each in found}:
        alike = sorted({each.same for each in found if each.data == data})
        sources = [json.loads(same)[0] for same in alike]
        names = sorted({name for source in sources for name in source})
        differing = [n for n in names if any(s.get(n) != sources[0].get(n) for s in sources)]
        for number, (same, source) in enumerate(zip(alike, sources, strict=True), start=1):
            fields = [f"{name}={source.get(name)}" for name in differing]
            # Sources that are alike differ in their classes, which may be many.
            others = fields or ([f"set {number} of {len(alike)}"] if len(alike) > 1 else [])
            told[same] = ", ".join([data, *others])
    return [replace(each, data=told[each.same]) for each in found]


def _fronts(found: list[Found]) -> dict[int, list[str]]:
    """Return by the identity of each of `found` the names of the fronts that it is on."""
    names: dict[int, list[str]] = {id(each): [] for each in found}
    for each in _on_front(found, "gzip_bytes"):
        names[id(each)].append("size")
    for machine in {each.machine for each in found}:
        peers = [each for each in found if each.machine == machine]
        for each in _on_front(peers, "latency_median_us", LATENCY_NOISE):
            names[id(each)].append("latency")
    return names


def _on_front(found: list[Found], cost: str, noise: float = 0.0) -> list[Found]:
    on = front([(each.row[cost], each.row["accuracy"]) for each in found], noise)
    return list(compress(found, on))


def _entry(found: Found, fronts: list[str]) -> dict[str, Any]:
    return {"data": found.data, "run": found.run, **found.row, "fronts": fronts}


def _text(entries: list[dict]) -> str:
    return "\n\n".join(
        f"{data}\n\n{_table([entry for entry in entries if entry['data'] == data])}"
        for data in dict.fromkeys(entry["data"] for entry in entries)
    )


def _table(entries: list[dict]) -> str:
    cells = [
        (
            entry["run"],
            entry["artifact"],
            f"{entry['accuracy']:.2%}",
            f"{entry['gzip_bytes']:,}",
            f"{entry['bytes']:,}",
            f"{entry['latency_median_us']:,.1f}",
            " and ".join(entry["fronts"]),
        )
        for entry in entries
    ]
    return table(cells, _HEADS, left=2)
