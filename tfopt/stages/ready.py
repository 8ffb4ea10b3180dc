"""What a stage fits, ready for it: its model compiled, with its teachers around it."""

from typing import Any

from tfopt.compat import keras, tf
from tfopt.stages.base import Stage
from tfopt.stages.devices import WHOLE, Whole
from tfopt.stages.distill import attached
from tfopt.stages.hold import hold
from tfopt.stages.optimizers import scaled

# A TPU is so fast that an epoch of most data sets goes at once; no more, since SIGTERM waits.
_ON_TPU = 512
_ELSEWHERE = 16
# The loop is traced twice and its graph is never freed (TF 2.21). On a CPU that takes 0.4 s for a
# small CNN and 2 s for a ResNet-8, and saves 2 ms a step.
_WORTH_A_LOOP = 1000


def ready(
    stage: Stage,
    model: "keras.Model",
    teachers: list,
    splits: Any,
    *,
    trained: bool,
    scale: float = 1.0,
    on: Whole = WHOLE,
) -> "keras.Model":
    """Return what is fitted, compiled: `model`, or with `teachers` the model around it."""
    synchronise_statistics(model)
    hold(model, trained=trained)
    fitted, teachers = on.placed(model, teachers)
    with on.scope():
        if teachers:
            fitted = attached(stage.name, fitted, stage.teachers, teachers, splits)
        compile_model(stage, fitted, splits.steps_per_epoch, scale, on)
    return fitted


def synchronise_statistics(model: "keras.Model") -> None:
    """Let BatchNormalization see the global batch, so that replicas change no result.

    Keras decides it at construction and forgets it on saving; one replica keeps the fused
    kernel, which is faster and can't synchronise.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        for layer in model.submodules:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.fused, layer.synchronized = False, True


def compile_model(
    stage: Stage, model: "keras.Model", steps: int, scale: float = 1.0, on: Whole = WHOLE
) -> None:
    """Compile `model` as `stage` says, for `steps` steps an epoch, with `scale` times its rates."""
    steps_in_all = stage.epochs * steps
    rate = stage.schedule.over(stage.learning_rate * scale, steps_in_all)
    optimizer = stage.optimizer.build(scaled(rate, scale, steps_in_all), **on.options)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        loss=_cross_entropy(stage.label_smoothing),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy", **on.options)],
        steps_per_execution=on.steps_per_execution(
            min(_steps_per_execution(stage, steps_in_all), steps)
        ),
        jit_compile=False,
    )


def _steps_per_execution(stage: Stage, steps: int) -> int:
    if stage.steps_per_execution:
        return stage.steps_per_execution
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        return _ON_TPU
    return _ELSEWHERE if steps >= _WORTH_A_LOOP else 1


def _cross_entropy(smoothing: float) -> Any:
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def smoothed(labels: Any, logits: Any) -> Any:
        classes = tf.shape(logits)[-1]
        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smoothing
        )

    return smoothed
