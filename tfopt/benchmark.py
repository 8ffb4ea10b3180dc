"""Latency of .tflite files of any origin, measured side by side in LiteRT.

Files are run in turns, so that whatever slows the machine down for a while slows all of them.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.compat import litert
from tfopt.errors import RunError
from tfopt.isolated import Child

_WARM_UP_SECONDS = 0.2
# Of a turn, after another file had the caches: untimed.
_FIRST = 3
_PERCENTILES = {"median_us": 50, "p90_us": 90, "p99_us": 99}
_STATUS = Path("/proc/self/status")


class CannotRunError(RunError):
    """LiteRT can't load or run a file; the message says which operator, where it is one."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A file, and how it is run: on so many threads, with the XNNPACK delegate or without."""

    path: Path
    threads: int = 1
    xnnpack: bool = True


@dataclass(frozen=True, slots=True)
class Cold:
    """What a first inference took in a process of its own, on one thread.

    Times in µs: `load_us` from the path to allocated tensors, `first_us` of the first inference.
    `memory_bytes` is what the process grew by at its peak, the file's bytes included; None where
    the system doesn't tell it.
    """

    load_us: float
    first_us: float
    memory_bytes: int | None


def cold(setting: Setting) -> Cold:
    """Load and run the file once, in this process; raises CannotRunError."""
    _ = litert.OpResolverType.AUTO  # loads LiteRT before anything is measured
    with _growth() as grown:
        began = time.perf_counter()
        interpreter = loaded(setting)
        load = time.perf_counter() - began
        first = _first(interpreter, setting.path)
    return Cold(1e6 * load, 1e6 * first, grown[0] if grown else None)


def cold_in_child(setting: Setting) -> Cold:
    """Return what `cold` finds in a new process, which a damaged file may crash or stall."""
    # Unlimited, as what threads reserve of a limit isn't what is measured.
    with Child(limited=False) as child:
        return Cold(**child.call(_cold, setting.path, setting.threads, setting.xnnpack))


def _cold(path: Path, threads: int, xnnpack: bool) -> dict:
    return asdict(cold(Setting(path, threads, xnnpack)))


def loaded(setting: Setting) -> Any:
    """Return an interpreter that has allocated the tensors of the file."""
    types = litert.OpResolverType
    try:
        interpreter = litert.Interpreter(
            str(setting.path),
            num_threads=setting.threads,
            experimental_op_resolver_type=(
                types.AUTO if setting.xnnpack else types.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _refused(setting.path, "load", error) from error
    return interpreter


def _first(interpreter: Any, path: Path) -> float:
    """Fill the inputs and run once; return the seconds. Raises CannotRunError."""
    # Noise may be no row of a table, which 0 is.
    with contextlib.suppress(ValueError, RuntimeError):
        return _filled_and_run(interpreter, noisy=True)
    try:
        return _filled_and_run(interpreter, noisy=False)
    except (ValueError, RuntimeError) as error:
        raise _refused(path, "run", error) from error


def _filled_and_run(interpreter: Any, *, noisy: bool) -> float:
    _fill(interpreter, noisy=noisy)
    began = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - began


def _refused(path: Path, what: str, error: Exception) -> CannotRunError:
    said = " ".join(str(error).split())
    return CannotRunError(
        f"{path}: LiteRT can't {what} it: {said}; look at it with `tfopt inspect`."
    )


def _fill(interpreter: Any, *, noisy: bool) -> None:
    """Set all inputs: to noise where they are numbers, and to 0 where they may be of a table."""
    rng = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        shape, dtype = tuple(details["shape"]), np.dtype(details["dtype"])
        values = np.zeros(shape, dtype)
        if noisy and dtype.kind == "f":
            values = rng.uniform(-1, 1, shape).astype(dtype)
        elif noisy and details["quantization"][0]:
            limits = np.iinfo(dtype)
            values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        interpreter.set_tensor(details["index"], values)


def side_by_side(settings: Sequence[Setting], *, runs: int, rounds: int) -> list[np.ndarray]:
    """Return for each of `settings` the latencies in µs, (rounds, runs // rounds).

    In every round each one makes its share of the runs, in another order each time.
    """
    interpreters = [_warm(setting) for setting in settings]
    share = max(runs // rounds, 1)
    found = [np.empty((rounds, share)) for _ in settings]
    order = np.random.default_rng(0)
    for number in range(rounds):
        for index in order.permutation(len(settings)):
            for _ in range(_FIRST):
                interpreters[index].invoke()
            found[index][number] = list(timed(interpreters[index], share))
    return found


def figures(latencies: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return the percentiles of `latencies` in µs, and by round the ratio to `reference`'s median.

    `ratio` is (median, least, most) over the rounds.
    """
    ratios = np.median(latencies, 1) / np.median(reference, 1)
    return {
        **{name: float(np.percentile(latencies, at)) for name, at in _PERCENTILES.items()},
        "ratio": [float(f(ratios)) for f in (np.median, np.min, np.max)],
    }


def _warm(setting: Setting) -> Any:
    interpreter = loaded(setting)
    _first(interpreter, setting.path)
    until = time.perf_counter() + _WARM_UP_SECONDS
    while time.perf_counter() < until:
        interpreter.invoke()
    return interpreter


def timed(interpreter: Any, runs: int) -> Iterator[float]:
    """Yield the latency of each of `runs` inferences, in µs."""
    invoke, now = interpreter.invoke, time.perf_counter_ns
    for _ in range(runs):
        began = now()
        invoke()
        yield (now() - began) / 1000


@contextlib.contextmanager
def _growth() -> Iterator[list[int]]:
    """Yield a list that afterwards has by how many bytes this process grew at its peak.

    It stays empty where the system doesn't tell: where it isn't Linux, or in some sandboxes.
    `getrusage` won't do: its peak is that of the process, and at its start that of the parent.
    """
    found: list[int] = []
    before = None
    with contextlib.suppress(OSError, StopIteration):
        _STATUS.with_name("clear_refs").write_text("5")  # sets the peak to what it is now
        before = _status("VmRSS")
    yield found
    with contextlib.suppress(OSError, StopIteration):
        found += [] if before is None else [_status("VmHWM") - before]


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
