"""Weights & Biases, for who has it: pip install 'tfopt[wandb]'."""

import html
import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.checkpoint import write_atomically
from tfopt.compat import wandb
from tfopt.errors import ConfigError
from tfopt.loggers.base import PlainValue
from tfopt.paths import is_local
from tfopt.spec import spec

_BINS = 64
_POINTS = 100


@spec
class WandB:
    """Shows the run in the `project` of Weights & Biases, beside TensorBoard.

    `entity` is whose project it is, where it isn't the user's own. All else, as the key and
    WANDB_MODE=offline, is said to W&B in its own way. A run that is started again goes on as the
    same run there, by the id in the workdir.
    """

    project: str
    entity: str = ""

    def open(self, workdir: Path) -> "_Run":
        """Return the logger of the run in `workdir`; raise ConfigError without W&B's package."""
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "config.loggers: expected the package wandb for WandB(), received none; "
                "pip install 'tfopt[wandb]'."
            )
        return _Run(self, workdir)


class _Run:
    def __init__(self, service: WandB, workdir: Path) -> None:
        self._service, self._workdir, self._run = service, workdir, None

    def hparams(self, asked: Mapping[str, PlainValue]) -> None:
        """Begin the run, or go on with it; raise ConfigError where W&B refuses."""
        try:
            self._run = wandb.init(
                project=self._service.project,
                entity=self._service.entity or None,
                name=str(asked["name"]),
                id=self._id(),
                resume="allow",
                config=dict(asked),
                dir=str(self._workdir) if is_local(self._workdir) else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            said = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(
                f"config.loggers: expected that W&B takes a run for WandB(), received {said!r}; "
                "wandb login, or set WANDB_MODE=offline."
            ) from error

    def scalars(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Log a point of each curve."""
        self._log(stage, values, step)

    def histograms(self, stage: str, values: Mapping[str, Any], step: int) -> None:
        """Log each of them."""
        counted = {n: np.histogram(np.asarray(v), bins=_BINS) for n, v in values.items()}
        self._log(stage, {n: wandb.Histogram(np_histogram=c) for n, c in counted.items()}, step)

    def graph(self, stage: str, graph: Any) -> None:
        """Do nothing: W&B shows no graph of TensorFlow."""

    def figures(self, stage: str, values: Mapping[str, float]) -> None:
        """Write them to the run's summary, by which W&B compares runs."""
        self._run.summary.update(_of(stage, values))

    def text(self, name: str, markdown: str) -> None:
        """Log it as it is written."""
        self._run.log({name: wandb.Html(f"<pre>{html.escape(markdown)}</pre>")})

    def pr_curves(self, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Log one plot of all."""
        recalls, precisions = zip(*(_curve(*curve) for curve in curves.values()), strict=True)
        plot = wandb.plot.line_series(
            recalls, precisions, keys=list(curves), title="precision and recall", xname="recall"
        )
        self._run.log({"pr": plot})

    def close(self, *, failed: bool) -> None:
        """Have W&B send what it hasn't yet."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))

    def _log(self, stage: str, values: Mapping[str, Any], step: int) -> None:
        self._run.log(_of(stage, values), step=step)

    def _id(self) -> str:
        path = self._workdir / "wandb" / "run_id"
        if not path.exists():
            write_atomically(path, uuid.uuid4().hex[:8])
        return path.read_text()


def _of(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{stage}/{name}" if stage else name: value for name, value in values.items()}


def _curve(is_one: np.ndarray, scores: np.ndarray) -> tuple[list[float], list[float]]:
    """Return recall and precision at up to `_POINTS` of the ranks by score."""
    right = np.cumsum(is_one[np.argsort(-scores)])
    ranks = np.unique(np.linspace(0, len(right) - 1, _POINTS).astype(int))
    right, taken = right[ranks], ranks + 1
    return (right / max(is_one.sum(), 1)).tolist(), (right / taken).tolist()
