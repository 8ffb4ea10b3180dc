"""Work on a file in a child process, which a damaged one may crash, stall or fill the memory of."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tfopt.errors import ConfigError, RunError

# What it may take beside so many times the size of the file.
_MEMORY, _TIMES = 4 * 2**30, 8


class Child:
    """A process that calls functions on files, one at a time, and is begun again after a crash.

    `seconds` is what a call may take.
    """

    def __init__(self, seconds: float = 300) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def call(self, function: Callable, path: Path, *arguments: Any) -> Any:
        """Return what the module-level `function` says of `path`; all of it is plain JSON.

        Raises the ConfigError or RunError that it raised, and RunError where the file makes it
        crash, or take too much time or memory.
        """
        process = self._process = self._process or _started()
        asked = [function.__module__, function.__qualname__, str(path), *arguments]
        late = threading.Event()
        timer = threading.Timer(self._seconds, lambda: (late.set(), process.kill()))
        timer.start()
        try:
            line = _told(process, json.dumps(asked))
        finally:
            timer.cancel()
        if not line:
            code = self._end()
            why = f"takes over {self._seconds:g} seconds" if late.is_set() else f"crashed ({code})"
            raise RunError(
                f"{path}: reading or running it {why}; it is damaged, or too large for here."
            )
        found = json.loads(line)
        if "answer" in found:
            return found["answer"]
        raise (RunError if "failed" in found else ConfigError)(*found.values())

    def _end(self) -> int:
        """Let the child end and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        return process.wait()


def _started() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tfopt.isolated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # LiteRT says things there; what it raises is answered.
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )


def _told(process: subprocess.Popen, line: str) -> str:
    with contextlib.suppress(OSError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline()


def _answers(questions: IO[str]) -> Iterator[dict]:
    for line in questions:
        module, name, path, *arguments = json.loads(line)
        function = getattr(importlib.import_module(module), name)
        try:
            with contextlib.suppress(OSError):
                _limit_memory(_MEMORY + _TIMES * Path(path).stat().st_size)
            yield {"answer": function(Path(path), *arguments)}
        except ConfigError as error:
            yield {"refused": str(error)}
        except RunError as error:
            yield {"failed": str(error)}
        except Exception as error:  # a damaged file may lead to any
            said = " ".join(f"{type(error).__name__} {error}".split())
            yield {"failed": f"{path}: it can't be read or run ({said})."}


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if most < 0 else min(size, most), most))


def main() -> None:
    """Answer one line after another, until there are no more."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for answer in _answers(open(0, encoding="utf-8")):  # noqa: SIM115
        print(json.dumps(answer), file=told, flush=True)


if __name__ == "__main__":
    main()
