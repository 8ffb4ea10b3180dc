"""What is watched and kept while a stage trains; loads TensorFlow when imported."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from tfopt import hosts, preemption
from tfopt.checkpoint import EpochCheckpoints
from tfopt.compat import keras, tf
from tfopt.errors import RunError
from tfopt.facts import kernel_variables
from tfopt.rounding import ranges
from tfopt.stages.waits import Waits

_LOG = logging.getLogger(__name__)


class StopAtNaN(keras.callbacks.Callback):
    """Raise RunError with the step and the learning rate when the loss is not finite."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look at the running loss; after a NaN it stays NaN."""
        self._look_at((logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at the validation loss: it alone tells what the last update did."""
        self._look_at((logs or {}).get("val_loss", 0.0))

    def _look_at(self, loss: float) -> None:
        if not math.isfinite(loss):
            step = step_of(self.model.optimizer)
            rate = learning_rate(self.model.optimizer)
            raise RunError(
                f"stage {self._stage!r}: expected a finite loss, received {loss} by step {step} "
                f"at learning rate {rate:g}; lower the learning rate or look at the data."
            )


class Averages(keras.callbacks.Callback):
    """Average the trainable weights of `student` over a stage of `steps` steps.

    By a callback, after each execution, and not by Keras's `use_ema`, which averages before
    constraints are applied: zeros and shared values would be lost. `variables` belong into the
    checkpoint.
    """

    def __init__(self, average: Any, student: "keras.Model", steps: int) -> None:
        super().__init__()
        self._average, self._steps, self._last = average, steps, 0
        self._weights = student.trainable_variables
        self.variables = [tf.Variable(weight, trainable=False) for weight in self._weights]
        self._move = tf.function(self._moved)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Go on from the step that the optimizer is at, and say what the epochs' lines tell."""
        _LOG.info("epochs measure the weights as trained; their average comes after the last.")
        self._last = step_of(self.model.optimizer)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Take the weights into the average."""
        step = step_of(self.model.optimizer)
        self._move(tf.constant(self._average.share(step, self._last, self._steps), tf.float32))
        self._last = step

    def _moved(self, share: "tf.Tensor") -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            new = tf.cast(share, average.dtype)
            average.assign((1 - new) * average + new * weight)

    def adopt(self) -> None:
        """Set the weights to their averages; zeros of the last weights stay zero."""
        for average, weight in zip(self.variables, self._weights, strict=True):
            weight.assign(tf.where(weight == 0, tf.zeros_like(average), average))


class Curves(keras.callbacks.Callback):
    """Tell what a stage's epochs measured to `logger`, where there is one, and to `history`.

    Scalars are loss, metrics, learning rate, examples per second, the seconds waited for data,
    the sparsity of every kernel and the ends of every range that is quantized; histograms are of
    the weights; the graph is the model's. Steps are epochs counted over the whole experiment, of
    which those of this stage begin after `first`, so that the stages line up on one axis.
    """

    def __init__(
        self,
        student: "keras.Model",
        stage: str,
        logger: Any,
        first: int,
        examples: int,
        history: list,
        waits: Waits,
    ) -> None:
        super().__init__()
        self._student, self._first, self._examples = student, first, examples
        self._stage, self._logger, self._waits = stage, logger, waits
        self.history = history
        self._clock = _TrainingClock()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Show the graph."""
        if not self.history:
            student: Any = self._student
            inputs = [tf.TensorSpec([1, *x.shape[1:]], x.dtype) for x in student.inputs]
            traced = tf.function(lambda *x: student(list(x), training=False))
            # By every host, since what is traced may number the collective operations.
            graph = traced.get_concrete_function(*inputs).graph
            if self._logger is not None:
                self._logger.graph(self._stage, graph)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._waits.take()
        self._clock.start()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stop the clock: validation is no training."""
        self._clock.stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Tell one point of every curve."""
        values = {
            **(logs or {}),
            "learning_rate": learning_rate(self.model.optimizer),
            "examples_per_second": self._examples / self._clock.stop(),
            "waited": self._waits.take(),
        }
        self._tell(values, self._first + epoch + 1)
        values["seconds"] = self._clock.stop()
        self.history.append({name: float(value) for name, value in values.items()})

    def _tell(self, values: dict, step: int) -> None:
        kernels = kernel_variables(self._student)
        of_layers = {
            f"sparsity/{name}": float(tf.math.zero_fraction(value))
            for name, value in kernels.items()
        }
        for name, (low, high) in ranges(self._student).items():
            of_layers |= {f"range/{name}/low": float(low), f"range/{name}/high": float(high)}
        if self._logger is not None:
            weights = {f"weights/{name}": kernel for name, kernel in kernels.items()}
            self._logger.scalars(self._stage, {**values, **of_layers}, step)
            self._logger.histograms(self._stage, weights, step)


class _TrainingClock:
    """Seconds from `start` to the first `stop` after it."""

    def start(self) -> None:
        """Begin anew."""
        self._began, self._seconds = time.perf_counter(), None

    def stop(self) -> float:
        """Return the seconds, the same at every call until the next start."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._began
        return self._seconds


class TestLine(keras.callbacks.Callback):
    """Print the loss and accuracy on the test split after every epoch."""

    def __init__(self, test: Any, steps: int | None) -> None:
        super().__init__()
        self._test, self._steps = test, steps

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Evaluate and print."""
        logs = {} if logs is None else logs
        loss, accuracy = self.model.evaluate(self._test, steps=self._steps, verbose=0)
        logs.update(test_loss=loss, test_accuracy=accuracy)
        if hosts.is_chief():
            print(f"Epoch {epoch + 1}, Test Loss: {loss:.4f}, Test Accuracy: {accuracy:.4f}")


class SaveEpoch(keras.callbacks.Callback):
    """Save the state after every epoch; comes last, when weights are masked and logged."""

    def __init__(self, checkpoints: EpochCheckpoints, history: list) -> None:
        super().__init__()
        self._checkpoints, self._history = checkpoints, history

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save."""
        self._checkpoints.save(self._history)


class SaveWhenPreempted(keras.callbacks.Callback):
    """Save the state in the middle of an epoch, and end there, when SIGTERM has come.

    Of several hosts none can save alone: they go on from the last epoch.
    """

    def __init__(
        self,
        checkpoints: EpochCheckpoints,
        history: list,
        steps_per_epoch: int,
        gather: Callable[[], None],
    ) -> None:
        super().__init__()
        self._checkpoints, self._history, self._steps = checkpoints, history, steps_per_epoch
        self._gather = gather

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look whether it has."""
        if not preemption.noticed():
            return
        made = step_of(self.model.optimizer) - len(self._history) * self._steps
        if made == self._steps:
            return  # the epoch is about to be saved, with what its validation says
        if not hosts.are_several():
            self._gather()
            self._checkpoints.save(self._history, made)
        raise preemption.PreemptedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look whether it has; the epoch is saved."""
        if preemption.noticed():
            raise preemption.PreemptedError


def learning_rate(optimizer: "keras.optimizers.Optimizer") -> float:
    """Return the learning rate of the step that `optimizer` made last."""
    return float(keras.backend.get_value(optimizer.learning_rate))


def step_of(optimizer: "keras.optimizers.Optimizer") -> int:
    """Return the number of steps that `optimizer` has made, over any number of replicas."""
    return int(optimizer.iterations.numpy())
