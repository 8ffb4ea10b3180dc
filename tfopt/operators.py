"""How long each operator of a .tflite file takes: by LiteRT's profiler, or TensorFlow's tool."""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tfopt import profiler
from tfopt.benchmark import CannotRunError, Setting
from tfopt.errors import ConfigError
from tfopt.isolated import Child

TOOL = "benchmark_model"
_GET_IT = (
    "build it by `bazel build -c opt tensorflow/lite/tools/benchmark:benchmark_model` in "
    "TensorFlow's sources"
)
PROFILER = "LiteRT's profiler, in whole µs"
# Kinds of events: an operator of LiteRT, or one of a delegate that stands for it.
_OF_OPERATORS = (2, 8)
_WHOLE = (1, b"Invoke")
_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_INFERENCE = re.compile(r"Inference(?: \(avg\))?: ([\d.e+]+)")
_MOST_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator by its kernel, and what an inference spends in it, in µs."""

    name: str
    mean_us: float


@dataclass(frozen=True, slots=True)
class Operators:
    """All operators in the order in which they run, and a whole inference, as `source` tells."""

    source: str
    inference_us: float
    operators: list[Operator]


def chosen(tool: str) -> str:
    """Return the path of the `tool` that was asked for, or "" where LiteRT's profiler will do.

    Raises ConfigError where there is neither it nor a LiteRT whose profiler is known.
    """
    if not tool and profiler.is_here():
        return ""
    found = shutil.which(tool or TOOL)
    if not found and tool:
        raise ConfigError(
            f"--{TOOL}: expected TensorFlow's tool, received {tool!r}, which can't be run; "
            f"{_GET_IT}."
        )
    if not found:
        raise ConfigError(
            f"--operators: expected LiteRT 2.3 or TensorFlow's {TOOL} on the PATH, received "
            f"neither; pip install 'ai-edge-litert==2.3.*', or {_GET_IT}."
        )
    return found


def measured(setting: Setting, runs: int, tool: str) -> Operators:
    """Return the operators of a file, by the `tool` that was `chosen`."""
    if tool:
        return by_tool(tool, setting, runs)
    with Child(limited=False) as child:
        found = child.call(_profiled, setting.path, setting.threads, setting.xnnpack, runs)
    return Operators(**{**found, "operators": [Operator(**o) for o in found["operators"]]})


def _profiled(path: Path, threads: int, xnnpack: bool, runs: int) -> dict:
    return asdict(by_litert(Setting(path, threads, xnnpack), runs))


def by_litert(setting: Setting, runs: int) -> Operators:
    """Return what LiteRT's profiler finds, in this process.

    Of the faster half of all runs, as the others had something else beside them. Numbers are those
    of operators in the file, or of the delegate's, whose times are rounded down to whole µs.
    """
    each = [run for events in profiler.events(setting, runs) for run in _by_run(events)]
    faster = sorted(each, key=lambda run: run[0])[: (len(each) + 1) // 2]
    spent: dict[tuple, int] = defaultdict(int)
    for _, events in faster:
        for event in events:
            spent[event.subgraph, event.index, event.kind, event.tag] += event.elapsed_us
    operators = [
        Operator(f"{index} {(tag or b'?').decode()}", micros / len(faster))
        for (_, index, _, tag), micros in spent.items()
    ]
    return Operators(PROFILER, sum(whole for whole, _ in faster) / len(faster), operators)


def _by_run(events: list) -> Iterator[tuple[int, list]]:
    """Yield what each inference took, in µs, and the events of its operators."""
    runs: list[tuple[int, list]] = []
    for event in events:
        if (event.kind, event.tag) == _WHOLE:
            runs.append((event.elapsed_us, []))
        elif event.kind in _OF_OPERATORS and runs:
            runs[-1][1].append(event)
    yield from runs


def by_tool(tool: str, setting: Setting, runs: int) -> Operators:
    """Return what TensorFlow's benchmark_model at the path `tool` finds."""
    command = [
        *(tool, f"--graph={setting.path}", f"--num_threads={setting.threads}"),
        *(f"--use_xnnpack={str(setting.xnnpack).lower()}", f"--num_runs={runs}"),
        "--enable_op_profiling=true",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRunError(f"{setting.path}: {tool} can't profile it: {error}.") from error
    said = f"{done.stdout}\n{done.stderr}"
    inference = _INFERENCE.search(said)
    if done.returncode or not inference:
        last = said.strip().splitlines()[-1:]
        raise CannotRunError(
            f"{setting.path}: {tool} can't profile it, it ends with {done.returncode} and {last}; "
            f"look at it with `tfopt inspect`."
        )
    return Operators(Path(tool).name, float(inference[1]), parsed(said))


def parsed(said: str) -> list[Operator]:
    """Return the operators of the main graph in what benchmark_model `said`, in their order.

    What it says of subgraphs and of the inside of a delegate is contained in these.
    """
    _, _, regular = said.partition(_REGULAR)
    _, _, table = regular.partition(" Run Order ")
    lines = table.splitlines()[1:]
    if not lines:
        raise CannotRunError(
            f"expected {TOOL} to print the times of operators, received none; it must be one that "
            "knows --enable_op_profiling."
        )
    heads = _cells(lines[0])
    found = []
    for line in lines[1:]:
        if not line.strip():
            break
        row = dict(zip(heads, _cells(line), strict=False))
        times = max(int(row["[times called]"]), 1)
        name = f"{row['[node type]']} {row['[Name]']}"
        found.append(Operator(name, 1000 * float(row["[avg ms]"]) * times))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().split("\t")]
