"""TensorFlow's own profile of some steps of a stage; loads TensorFlow when imported."""

import logging
from pathlib import Path

from tfopt.compat import keras, tf

_LOG = logging.getLogger(__name__)
_STEPS = 10


class Profile(keras.callbacks.Callback):
    """Write a profile of `_STEPS` steps to `folder`, where TensorBoard looks for it.

    It begins after the first execution, in which the step is traced, unless there is no other, and
    ends with an execution: where these are of many steps, it is of more. Who calls `fit` must call
    `end` after it, as a process has one profile at a time, and what raises in `fit` calls no more
    callbacks.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._is_traced, self._runs, self._steps = False, False, 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Begin, where it is time."""
        self._first = batch
        at_once = int(self.model._steps_per_execution)
        is_only = self.params["epochs"] == 1 and self.params["steps"] <= at_once
        if not self._steps and (self._is_traced or is_only):
            tf.profiler.experimental.start(str(self._folder))
            self._runs = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the steps; end when there are enough."""
        self._is_traced = True
        if self._runs:
            self._steps += batch - self._first + 1
            if self._steps >= _STEPS:
                self.end()

    def end(self) -> None:
        """End the profile, where one runs."""
        if not self._runs:
            return
        self._runs = False
        tf.profiler.experimental.stop()
        _LOG.info(
            "profile of %d steps: %s; TensorBoard shows it where its plugin is installed, by "
            "pip install tensorboard-plugin-profile.",
            *(self._steps, self._folder / "plugins" / "profile"),
        )
