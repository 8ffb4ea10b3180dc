"""The loggers of a run as one, for as long as it goes on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.loggers.base import Logger
from tfopt.loggers.tensorboard import TensorBoard


@contextlib.contextmanager
def logged(loggers: list, workdir: Path) -> Iterator[Logger]:
    """Yield what shows the run in `workdir` in TensorBoard and in each of `loggers`.

    Raises ConfigError where one of them can't be used.
    """
    every: Any = _Every([TensorBoard(workdir), *(each.open(workdir) for each in loggers)])
    try:
        yield every
    except BaseException:
        every.close(failed=True)
        raise
    every.close(failed=False)


class _Every:
    """A logger that tells each of its own what it is told."""

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def __getattr__(self, name: str) -> Any:
        def tell(*args: Any, **options: Any) -> None:
            for logger in self._loggers:
                getattr(logger, name)(*args, **options)

        return tell
