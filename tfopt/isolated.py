"""Work on a file in a child process, which a damaged one may crash, stall or fill the memory of."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tfopt.errors import ConfigError, RunError

# What it may take beside so many times the size of the file.
_MEMORY, _TIMES = 4 * 2**30, 8
# It finds modules where this process does: Python itself would look into the current folder first.
_BEGIN = "import sys; sys.path[:] = {path!r}; from tfopt.isolated import main; main()"


class Child:
    """A process that calls functions on files, one at a time, and is begun again after a crash.

    `seconds` is what a call may take, `limited` whether its memory has a limit.
    """

    def __init__(self, seconds: float = 300, *, limited: bool = True) -> None:
        self._seconds, self._limited = seconds, limited
        self._process: subprocess.Popen | None = None
        self._said: IO[str] | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def call(self, function: Callable, path: Path, *arguments: Any) -> Any:
        """Return what the module-level `function` says of `path`; all of it is plain JSON.

        Raises the ConfigError or RunError that it raised, and RunError where the file makes it
        crash, or take too much time or memory, or where the process fails of itself.
        """
        process = self._started()
        asked = [self._limited, function.__module__, function.__qualname__, str(path), *arguments]
        late = threading.Event()
        timer = threading.Timer(self._seconds, lambda: (late.set(), process.kill()))
        timer.start()
        try:
            line = _told(process, json.dumps(asked))
        finally:
            timer.cancel()
        if not line:
            code, said = self._end()
            if code == 1 and not late.is_set():
                raise RunError(
                    f"{path}: the process that was to read or run it failed ({said}); that is no "
                    "fault of the file, but of tfopt or of what is installed with it."
                )
            why = f"takes over {self._seconds:g} seconds" if late.is_set() else f"crashed ({code})"
            raise RunError(
                f"{path}: reading or running it {why}; it is damaged, made for a newer LiteRT, or "
                "too large for here."
            )
        found = json.loads(line)
        if "answer" in found:
            return found["answer"]
        raise (RunError if "failed" in found else ConfigError)(*found.values())

    def _started(self) -> subprocess.Popen:
        if self._process is None:
            self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BEGIN.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # LiteRT says things there; what it raises is answered.
                stderr=self._said,
                text=True,
                encoding="utf-8",
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        return self._process

    def _end(self) -> tuple[int, str]:
        """Let the child end; return its exit code and the last line that it said."""
        process, said = self._process, self._said
        self._process = self._said = None
        if process is None or said is None:
            return 0, ""
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        with said:
            code = process.wait()
            said.seek(0)
            return code, next(iter(said.read().strip().splitlines()[-1:]), "it didn't say why")


def _told(process: subprocess.Popen, line: str) -> str:
    with contextlib.suppress(OSError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline()


def _answers(questions: IO[str]) -> Iterator[dict]:
    for line in questions:
        limited, module, name, path, *arguments = json.loads(line)
        function = getattr(importlib.import_module(module), name)
        try:
            # A system that has no such limit raises either.
            with contextlib.suppress(OSError, ValueError):
                if limited:
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
