"""What every stage will do to the model, done to one that isn't trained: fail now, not in hours."""

import re
from typing import Any

import numpy as np

from tfopt import evaluate, export
from tfopt.checkpoint import reloaded
from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.errors import ConfigError, RunError
from tfopt.export.converter import converted, converter
from tfopt.facts import Facts, activation_bits, is_quantized, measure
from tfopt.graph import index_inputs, rebuilt, told_apart
from tfopt.models.saved import is_softmax
from tfopt.runner import ArtifactError, Runner
from tfopt.stages import Stage, distill
from tfopt.stages.hold import check_held
from tfopt.tflite import flatbuffer, metadata

_BATCH = 2
_REPLACE = "replace them by layers made of others"


def rehearse(experiment: Experiment, splits: Any) -> None:
    """Raise ConfigError where a stage, a teacher or a variant of `experiment` can't be done.

    Its model is built, saved, loaded, rewritten as every stage will, converted to TFLite and run.
    """
    model = build(experiment, splits.spec)
    trained = is_trained(experiment.model)
    if trained:
        evaluate.log_accuracy(model, splits.validation)
    _check_stages(experiment.stages, model, trained)
    built = model = _reloaded(model)
    models: dict[str, Any] = {}
    samples = splits.samples.take(1)  # what they measure is of no use yet
    sources = [teacher.source for stage in experiment.stages for teacher in stage.teachers]
    before, uncertain = measure(model), {}
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
            uncertain |= {} if variant.runs_what_float_does else {variant.name: variant}
    # Layers that TFLite lacks are told by nothing but its converter.
    content = converted(converter(_reloaded(built)))
    _check_any_batch("config.model", _REPLACE, content, built, splits.spec)
    _check_described(content, experiment.name, splits.spec)
    for name, variant in uncertain.items():
        content = variant.convert(_reloaded(built), next(iter(samples))[0].numpy())
        remedy = f"{_REPLACE}, or leave the variant out"
        _check_any_batch(f"variant {name!r}", remedy, content, built, splits.spec)


def _check_any_batch(at: str, remedy: str, content: bytes, model: "keras.Model", spec: Any) -> None:
    """Raise ConfigError unless LiteRT runs the .tflite `content` of `model` at another batch."""
    try:
        artifact = export.Artifact(stage="", variant="", content=content)
        Runner(artifact, threads=1)(np.zeros((_BATCH, *spec.shape), np.float32))
    except ArtifactError as error:
        raise ConfigError(
            f"{at}: expected layers that LiteRT runs at any batch, received "
            f"{_failing(str(error), content, model)} at one of {_BATCH} ({error.__cause__}); "
            f"{remedy}."
        ) from error


def _failing(said: str, content: bytes, model: "keras.Model") -> str:
    """Return the layers of `model` of whose operator LiteRT has `said` that it fails."""
    # A delegate's own node, of which it also speaks, comes after the one that it can't take.
    found = re.search(r"[Nn]ode (?:#|number )(\d+)", said)
    operators = flatbuffer.read(content).operators
    failing = operators[int(found[1]) : int(found[1]) + 1] if found else ()
    names = [layer.name for layer in model.layers]
    layers = sorted(layer for operator in failing for layer in operator.layers(names))
    return ", ".join(map(repr, layers)) or "some that fail"


def _check_described(content: bytes, name: str, spec: Any) -> None:
    """Raise ConfigError unless what is to be said of the data can be read from a file again."""
    about = {"stage": "", "variant": "", "accuracy": 0.0, "examples": 0}
    said = metadata.Description.of(spec, config=name, config_hash="", **about)
    try:
        found = metadata.read(metadata.attached(content, said))
    except (TypeError, ValueError) as error:  # as text is that isn't UTF-8
        raise ConfigError(
            "config.data: expected class names, a normalisation and a front end of tfopt.data that "
            f"can be written into a file, received some of which it is said: {error}"
        ) from error
    if found != said:
        raise ConfigError(
            "config.data: expected class names, a normalisation and a front end that are read from "
            f"a file as they are written, received {said}, which is read as {found}."
        )


def build(experiment: Experiment, spec: Any) -> "keras.Model":
    """Return the model of `experiment`, functional; raise ConfigError unless it fits the data."""
    model = experiment.model(spec)
    _check_ends(model, spec)
    model = told_apart(model)
    return rebuilt(model) if isinstance(model, keras.Sequential) else model


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
    if not getattr(model, "_is_graph_network", False):
        raise ConfigError(
            f"config.model: expected a functional model, received a {type(model).__name__} whose "
            "layers can't be told apart; write it as keras.Model(inputs, outputs)."
        )
    inputs: Any = model.inputs
    taken = [tuple(tensor.shape[1:]) for tensor in inputs]
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
    for rows in index_inputs(model).values():
        _check_rows(rows, spec)
    last = model.outputs[0]._keras_history.layer
    if is_softmax(last):
        raise ConfigError(
            f"config.model: expected logits, received the probabilities of {last.name!r}; take "
            "its softmax off, which the loss brings."
        )


def _check_rows(rows: int, spec: Any) -> None:
    """Raise ConfigError unless the data are numbers of `rows` rows of an Embedding's table."""
    if spec.normalisation.changes:
        raise ConfigError(
            "config.data: expected numbers as they are, since the model looks them up in an "
            "Embedding, received normalised ones; give the data mean=(0,) and std=(1,), or "
            "from_arrays normalisation=Normalisation()."
        )
    if spec.limits and not (spec.limits[0] >= 0 and spec.limits[1] < rows):
        raise ConfigError(
            f"config.data: expected whole numbers from 0 to {rows - 1}, the rows of the model's "
            f"Embedding, received {spec.limits[0]} to {spec.limits[1]}; give it a larger input_dim "
            "or other numbers to what isn't in the vocabulary."
        )


def _check_stages(stages: list[Stage], model: "keras.Model", trained: bool) -> None:
    """Raise ConfigError where a stage has nothing to work on, or the next one undoes it."""
    if is_quantized(model) and any(s.epochs or type(s) is not Stage for s in stages):
        raise ConfigError(
            "config.model: expected a model that isn't quantization-aware yet, since no stage "
            "comes after quantization, received one that is; take it as it was before, or "
            "stages=[Stage(epochs=0)] to export it as it is."
        )
    undone = ""
    for stage in stages:
        if stage.needs_trained and not trained:
            raise ConfigError(
                f"stage {stage.name!r}: expected a trained model, received one of random weights; "
                "put it after a stage that trains, or start from models.Saved."
            )
        if undone and (stage.epochs or stage.needs_trained):
            raise ConfigError(
                f"stage {stage.name!r}: expected no stage that changes weights after {undone!r}, "
                f"which it undoes; put {undone!r} last."
            )
        trained = trained or stage.epochs > 0
        undone = undone or (stage.name if stage.goes_last else "")


def _check_order(stage: Stage, before: Facts, after: Facts, trained: bool) -> None:
    try:
        # No stage of a rehearsal trains.
        check_held(stage.name, before, after, trained=trained, scaled=stage.scales_channels)
    except RunError as error:
        raise ConfigError(
            f"{error} It would do so after training, too: put it before the stages whose "
            "work it loses, or leave it out."
        ) from error
