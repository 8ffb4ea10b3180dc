"""The Keras model that a teacher's objective is made of; loads TensorFlow when imported."""

from typing import Any

from tfopt.compat import keras, tf


class Distilled(keras.Model):
    """A student whose training loss includes its distance to a frozen teacher.

    The loss is added in `call`, so Keras's own `train_step` serves, and Keras scales it for
    the number of replicas. Evaluation never runs the teacher.
    """

    def __init__(
        self, student: "keras.Model", teacher: "keras.Model", weight: float, temperature: float
    ) -> None:
        super().__init__(name=f"distilled_{student.name}")
        teacher.trainable = False
        self.student, self.teacher = student, teacher
        self._weight, self._temperature = weight, temperature

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the student's logits, (batch, classes)."""
        logits = self.student(inputs, training=training)
        if training:
            self.add_loss(self._weight * self._distance(inputs, logits))
        return logits

    def _distance(self, inputs: Any, logits: Any) -> Any:
        targets = tf.stop_gradient(self.teacher(inputs, training=False)) / self._temperature
        log_targets = tf.nn.log_softmax(tf.cast(targets, tf.float32))
        log_student = tf.nn.log_softmax(tf.cast(logits, tf.float32) / self._temperature)
        divergence = tf.reduce_sum(tf.exp(log_targets) * (log_targets - log_student), axis=-1)
        return self._temperature**2 * tf.reduce_mean(divergence)
