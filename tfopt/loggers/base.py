"""What a logger is."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

PlainValue = bool | int | float | str


class Logger(Protocol):
    """Shows one run, which may have been begun by a process before this one.

    `stage` is the name of the stage that figures are of, "" where they are the run's. Nothing is
    shown, and no service is called, before `hparams`.
    """

    def hparams(self, asked: Mapping[str, PlainValue]) -> None:
        """Begin, or go on, with the run that was `asked` for so, by field of its config."""

    def scalars(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Show a point of each curve; `step` counts epochs over all stages."""

    def histograms(self, stage: str, values: Mapping[str, Any], step: int) -> None:
        """Show how the numbers in arrays or variables are distributed at `step`."""

    def graph(self, stage: str, graph: Any) -> None:
        """Show a tf.Graph."""

    def figures(self, stage: str, values: Mapping[str, float]) -> None:
        """Show what is measured once and belongs to no step."""

    def text(self, name: str, markdown: str) -> None:
        """Show a text."""

    def pr_curves(self, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Show precision against recall of classes: what is one, (n,), and its score in [0, 1]."""

    def close(self, *, failed: bool) -> None:
        """End, for now; `failed` says that the run didn't come to its end."""
