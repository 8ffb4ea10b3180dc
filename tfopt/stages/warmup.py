"""The warm-up of a learning rate that follows the batch; loads TensorFlow when imported."""

from typing import Any

from tfopt.compat import keras, tf


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """`rate`, a number or a schedule, which rises to it linearly from 1 / `scale` in `steps`."""

    def __init__(self, rate: Any, scale: float, steps: int) -> None:
        super().__init__()
        self._rate, self._scale, self._steps = rate, scale, steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of `step`, from 0 on."""
        rate: Any = self._rate(step) if callable(self._rate) else self._rate
        done = tf.minimum(tf.cast(step, tf.float32) / self._steps, 1.0)
        return tf.convert_to_tensor(rate, tf.float32) * (
            1 / self._scale + (1 - 1 / self._scale) * done
        )

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"rate": self._rate, "scale": self._scale, "steps": self._steps}
