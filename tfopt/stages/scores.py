"""How much each weight matters, measured on a few batches of data."""

from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.facts import kernel_variables


def fisher(
    model: "keras.Model", samples: "tf.data.Dataset", *, batches: int = 8, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the diagonal of the Fisher information of every kernel, by `Kernel.key`.

    It is the second derivative of the loss where the model predicts its data well, so that
    `fisher * weight² / 2` estimates the loss of setting a weight to zero (LeCun et al. 1989,
    "Optimal Brain Damage"; Theis et al. 2018, "Faster gaze prediction with dense networks and
    Fisher pruning"). Labels are drawn from the model's own prediction: then the gradients of
    two examples are uncorrelated, and the square of a batch's gradient is an unbiased estimate
    (Liu et al. 2023, "Sophia", Gauss-Newton-Bartlett estimator). `samples` yields (examples,
    ...); `batches` of it are used.
    """
    kernels = kernel_variables(model)
    strategy = tf.distribute.get_strategy()

    def squares(examples: Any, number: Any) -> list:
        variables = list(kernels.values())
        with tf.GradientTape() as tape:
            tape.watch(variables)  # those of frozen layers as well
            logits = tf.cast(model(examples, training=False), tf.float32)
            drawn = tf.random.stateless_categorical(logits, 1, seed=tf.stack([seed, number]))
            loss = keras.losses.sparse_categorical_crossentropy(
                drawn[:, 0], logits, from_logits=True
            )
            loss = tf.reduce_mean(loss)
        size = tf.cast(tf.shape(logits)[0], tf.float32)
        gradients = tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [size * tf.square(tf.convert_to_tensor(gradient)) for gradient in gradients]

    # A mirrored variable has gradients on a replica only: all of them compute the same.
    @tf.function
    def on_replicas(examples: Any, number: Any) -> Any:
        return strategy.run(squares, args=(examples, number))

    sums = [np.zeros(kernel.shape, np.float32) for kernel in kernels.values()]
    count = 0
    for number, (examples, *_) in samples.take(batches).enumerate():
        found = on_replicas(examples, tf.cast(number, tf.int32))
        for total, each in zip(sums, found, strict=True):
            total += strategy.experimental_local_results(each)[0].numpy()
        count += 1
    return {name: total / max(count, 1) for name, total in zip(kernels, sums, strict=True)}
