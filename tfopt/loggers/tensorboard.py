"""TensorBoard: a run per stage, and one for what is true of all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.checkpoint import remove
from tfopt.compat import tb_charts, tb_hparams, tb_hparams_api, tb_layout, tb_pr_curves, tf
from tfopt.loggers.base import PlainValue

# No stage has this name, see config.py.
_RUN = "artifacts"
# Custom scalars: each chart has all stages, as regular expressions of tags.
_CHARTS = {
    "loss": ["^loss$", "^val_loss$"],
    "accuracy": ["^accuracy$", "^val_accuracy$"],
    "sparsity": ["^sparsity/"],
    "ranges": ["^range/"],
}


class TensorBoard:
    """Writes below `workdir`/tensorboard.

    The HParams dashboard takes a folder with a session's start for a run that it compares with
    others: it is the one of `_RUN`, so that there is one a run and not one a stage. What that
    holds is written anew by every process, as only the first of each kind would be shown.
    """

    def __init__(self, workdir: Path) -> None:
        self._folder = workdir / "tensorboard"
        self._writers: dict[str, Any] = {}

    def hparams(self, asked: Mapping[str, PlainValue]) -> None:
        """Begin a session, and lay the charts out."""
        remove(self._folder / _RUN)
        charts = [
            tb_layout.Chart(title=title, multiline=tb_layout.MultilineChartContent(tag=tags))
            for title, tags in _CHARTS.items()
        ]
        category = tb_layout.Category(title="all stages", chart=charts)
        self._write(tb_charts.pb(tb_layout.Layout(category=[category])))
        self._write(tb_hparams.session_start_pb(dict(asked)))

    def scalars(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Write a point of each curve."""
        with self._writer(stage).as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer(stage).flush()

    def histograms(self, stage: str, values: Mapping[str, Any], step: int) -> None:
        """Write each of them."""
        with self._writer(stage).as_default(step=step):
            for name, value in values.items():
                tf.summary.histogram(name, value)

    def graph(self, stage: str, graph: Any) -> None:
        """Write the graph."""
        with self._writer(stage).as_default(step=0):
            tf.summary.graph(graph)

    def figures(self, stage: str, values: Mapping[str, float]) -> None:
        """Write curves of one point."""
        self.scalars(stage, values, 0)

    def text(self, name: str, markdown: str) -> None:
        """Write it."""
        with self._writer("").as_default(step=0):
            tf.summary.text(name, markdown)

    def pr_curves(self, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Write each of them."""
        for name, (is_one, scores) in curves.items():
            self._write(tb_pr_curves.pb(name, is_one, scores))

    def close(self, *, failed: bool) -> None:
        """End the session, where there is one."""
        if "" in self._writers:
            status = tb_hparams_api.STATUS_FAILURE if failed else tb_hparams_api.STATUS_SUCCESS
            self._write(tb_hparams.session_end_pb(status))
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, summary: Any) -> None:
        """Write what a plugin of TensorBoard made for itself."""
        with self._writer("").as_default(step=0):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString())

    def _writer(self, stage: str) -> Any:
        if stage not in self._writers:
            folder = str(self._folder / (stage or _RUN))
            self._writers[stage] = tf.summary.create_file_writer(folder)
        return self._writers[stage]
