"""Whether what a run ends with fits the microcontroller that it is for."""

import logging
from pathlib import Path

from tfopt import flatbuffer, micro
from tfopt.c_array import remove_c_array, write_c_array
from tfopt.errors import RunError
from tfopt.limits import Budget

_LOG = logging.getLogger(__name__)


def check(budget: Budget, rows: list[dict], folder: Path) -> None:
    """Write the C array of the best artifact of `rows` that is within `budget`, if there is one.

    `rows` are those of one stage, `folder` has their files. Raises RunError where none runs on
    TensorFlow Lite Micro and meets both limits.
    """
    if not budget:
        return
    contents = {_name(row): (folder / f"{_name(row)}.tflite").read_bytes() for row in rows}
    fits = {name: micro.fit(each, flatbuffer.read(each)) for name, each in contents.items()}
    met = [row for row in rows if fits[_name(row)].share(budget) <= 1]
    best = max(met, key=lambda row: (row["accuracy"], -row["bytes"]), default=None)
    for name in fits.keys() - {_name(best) if best else ""}:
        remove_c_array(folder, name)
    if best is None:
        raise RunError(_missed(budget, fits))
    name = _name(best)
    _, source = write_c_array(contents[name], folder, name, f"{name}.tflite")
    _LOG.info(
        "artifact %s: %s bytes of flash and %s of arena are within the budget; as C array in %s.",
        *(name, f"{fits[name].flash:,}", _told(fits[name].arena_bytes), source),
    )


def _missed(budget: Budget, fits: dict[str, micro.Fit]) -> str:
    """Return by how much the nearest of `fits` misses the `budget`, and what to do."""
    name = min(fits, key=lambda name: fits[name].share(budget))
    limits = {"flash": budget.flash, "arena": budget.arena}
    asked = " and ".join(f"{limit:,} bytes of {what}" for what, limit in limits.items() if limit)
    reasons = fits[name].missed(budget)
    if refused := fits[name].refused:
        reasons = [f"TensorFlow Lite Micro refuses it ({refused[0]}); add Int8() to the variants."]
    return (
        f"config.budget: expected an artifact of the last stage within {asked}, received none; "
        f"{name} is the nearest: {' '.join(reasons)}"
    )


def _told(size: int | None) -> str:
    return "an unknown number" if size is None else f"{size:,}"


def _name(row: dict) -> str:
    return f"{row['stage']}_{row['variant']}"
