"""How much each weight matters, measured on a few batches of data."""

from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.facts import kernel_variables


def fisher(
    model: "keras.Model", samples: "tf.data.Dataset", *, batches: int = 8, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the diagonal of the Fisher information of every kernel, by `layer/weight`.

    It is the second derivative of the loss where the model predicts its data well, so that
    `fisher * weight² / 2` estimates the loss of setting a weight to zero (LeCun et al. 1989,
    "Optimal Brain Damage"; Theis et al. 2018, "Faster gaze prediction with dense networks and
    Fisher pruning"). Labels are drawn from the model's own prediction: then the gradients of
    two examples are uncorrelated, and the square of a batch's gradient is an unbiased estimate
    (Liu et al. 2023, "Sophia", Gauss-Newton-Bartlett estimator). `samples` yields (examples,
    ...); `batches` of it are used.
    """
    kernels = kernel_variables(model)
    sums = [tf.Variable(tf.zeros_like(kernel)) for kernel in kernels.values()]

    @tf.function
    def add(examples: Any, number: Any) -> None:
        with tf.GradientTape() as tape:
            logits = tf.cast(model(examples, training=False), tf.float32)
            drawn = tf.random.stateless_categorical(logits, 1, seed=tf.stack([seed, number]))
            loss = keras.losses.sparse_categorical_crossentropy(
                drawn[:, 0], logits, from_logits=True
            )
            loss = tf.reduce_mean(loss)
        size = tf.cast(tf.shape(logits)[0], tf.float32)
        gradients = tape.gradient(loss, list(kernels.values()))
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.assign_add(size * tf.square(tf.convert_to_tensor(gradient)))

    count = 0
    for number, (examples, *_) in samples.take(batches).enumerate():
        add(examples, tf.cast(number, tf.int32))
        count += 1
    return {name: total.numpy() / max(count, 1) for name, total in zip(kernels, sums, strict=True)}
