"""What every stage will do to the model, done to one that isn't trained: fail now, not in hours."""

from typing import Any

from tfopt import evaluate, export
from tfopt.checkpoint import reloaded
from tfopt.compat import keras, tf
from tfopt.config import ConfigError, Experiment, RunError
from tfopt.export.converter import converted, converter
from tfopt.facts import Facts, activation_bits, measure
from tfopt.graph import index_inputs
from tfopt.models.saved import is_softmax
from tfopt.stages import Stage, distill
from tfopt.stages.hold import check_held


def rehearse(experiment: Experiment, splits: Any) -> None:
    """Raise ConfigError where a stage, a teacher or a variant of `experiment` can't be done.

    Its model is built, saved, loaded, rewritten as every stage will, and converted to TFLite.
    """
    model = experiment.model(splits.spec)
    _check_ends(model, splits.spec)
    trained = is_trained(experiment.model)
    if trained:
        evaluate.log_accuracy(model, splits.validation)
    built = model = _reloaded(model)
    models: dict[str, Any] = {}
    samples = splits.samples.take(1)  # what they measure is of no use yet
    sources = [teacher.source for stage in experiment.stages for teacher in stage.teachers]
    before = measure(model)
    for stage in experiment.stages:
        prepared = stage.prepare(model, stage.epochs * splits.steps_per_epoch, samples)
        if stage.teachers:
            teachers = distill.loaded(stage.teachers, models.__getitem__)
            distill.attached(stage.name, prepared, stage.teachers, teachers, splits)
        model = stage.rehearsed(prepared)
        after = measure(model)
        _check_order(stage, before, after, trained)
        before = after
        if (stage.name, None) in sources:
            # A copy, since what a later stage wraps is wrapped in this model too.
            models[stage.name] = _reloaded(model)
        for variant in experiment.variants or export.sensible(activation_bits(model)):
            variant.check(model)
    # Layers that TFLite lacks are told by nothing but its converter.
    converted(converter(_reloaded(built)))


def is_trained(model: Any) -> bool:
    """Return whether `model` of a config comes from a file and isn't new."""
    return hasattr(model, "load")


def _reloaded(model: "keras.Model") -> "keras.Model":
    """Return `model` as it comes back from disk, where every stage takes it from."""
    try:
        return reloaded(model)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"config.model: expected a model that Keras can save and load, received one of "
            f"which it says {str(error).splitlines()[0]!r}; give your own layers get_config "
            "and decorate them with keras.saving.register_keras_serializable()."
        ) from error


def _check_ends(model: Any, spec: Any) -> None:
    """Raise ConfigError unless `model` takes the data and gives logits."""
    if not isinstance(model, keras.Model):
        raise ConfigError(
            "config.model: expected a model of tf_keras, as in `from tfopt.compat import keras`, "
            f"received a {type(model).__name__} of {type(model).__module__.split('.')[0]}; Keras 3 "
            "is another Keras."
        )
    taken = [tuple(tensor.shape[1:]) for tensor in model.inputs or ()]
    if len(taken) != 1 or not tf.TensorShape(taken[0]).is_compatible_with(spec.shape):
        raise ConfigError(
            f"config.model: expected a functional model with one input of shape {spec.shape}, "
            f"received inputs of shapes {taken}."
        )
    if model.output_shape != (None, spec.classes):
        raise ConfigError(
            f"config.model: expected logits of shape (None, {spec.classes}), received "
            f"{model.output_shape}."
        )
    if spec.normalisation.changes and index_inputs(model):
        raise ConfigError(
            "config.data: expected numbers as they are, since the model looks them up in an "
            "Embedding, received normalised ones; give the data mean=(0,) and std=(1,), or "
            "from_arrays normalisation=Normalisation()."
        )
    last = model.outputs[0]._keras_history.layer
    if is_softmax(last):
        raise ConfigError(
            f"config.model: expected logits, received the probabilities of {last.name!r}; take "
            "its softmax off, which the loss brings."
        )


def _check_order(stage: Stage, before: Facts, after: Facts, trained: bool) -> None:
    try:
        # No stage of a rehearsal trains.
        check_held(stage.name, before, after, trained=trained, scaled=stage.quantizes)
    except RunError as error:
        raise ConfigError(
            f"{error} It would do so after training, too: put it before the stages whose "
            "work it loses, or leave it out."
        ) from error
