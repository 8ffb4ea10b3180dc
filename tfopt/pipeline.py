"""One run: data, model, strategy, then every stage the same way, each proven by its artifacts."""

import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import evaluate, export, report
from tfopt.checkpoint import (
    full_disk_is_an_error,
    load_model,
    reloaded,
    save_model,
    write_atomically,
)
from tfopt.compat import keras, tf
from tfopt.config import ConfigError, Experiment, RunError, plain
from tfopt.facts import Facts, activation_bits, measure
from tfopt.models.saved import is_softmax
from tfopt.runner import ArtifactError
from tfopt.stages import Stage, distill
from tfopt.stages.carry_out import carry_out
from tfopt.stages.hold import check_held
from tfopt.strategy import choose
from tfopt.workdir import check_workdir, claim

_LOG = logging.getLogger(__name__)


def run(experiment: Experiment, workdir: Path) -> list[dict]:
    """Run `experiment` in `workdir` and return one row per artifact (stage x variant).

    The same call on the same `workdir` goes on where an earlier one stopped. Raises
    ConfigError before any training where the experiment can't be done, and RunError or
    ArtifactError where a stage or an artifact isn't what was asked for.
    """
    experiment.validate()
    workdir = workdir.expanduser().absolute()
    with full_disk_is_an_error(workdir):
        check_workdir(workdir, experiment)
        strategy = choose(experiment.strategy, experiment.replicas)
        experiment.check_replicas(strategy.num_replicas_in_sync)
        if experiment.deterministic:
            tf.config.experimental.enable_op_determinism()
        splits = experiment.data.load(experiment.batch_size)
        this = _Run(experiment, workdir, strategy, splits)
        if not this.is_finished(experiment.stages[0]):
            this.rehearse()
        # Not earlier: a run that was refused shall leave the folder free for the corrected one.
        claim(workdir, experiment)
        rows = []
        for index, stage in enumerate(experiment.stages):
            if not this.is_finished(stage):
                this.train(index, stage)
            # Here and not in train: a kill between its last two lines would leave them for ever.
            shutil.rmtree(workdir / stage.name / "epochs", ignore_errors=True)
            try:
                rows += this.prove(stage)
            except ArtifactError:
                this.report(experiment.stages[: index + 1])
                raise
        this.report(experiment.stages)
    return rows


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
    last = model.outputs[0]._keras_history.layer
    if is_softmax(last):
        raise ConfigError(
            f"config.model: expected logits, received the probabilities of {last.name!r}; take "
            "its softmax off, which the loss brings."
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """What all stages of one run share."""

    experiment: Experiment
    workdir: Path
    strategy: "tf.distribute.Strategy"
    splits: Any

    def is_finished(self, stage: Stage) -> bool:
        """Return whether `stage` was trained, checked and saved."""
        return (self.workdir / stage.name / "stage.json").exists()

    def rehearse(self) -> None:
        """Rewrite an untrained model as every stage will: fail now and not after hours."""
        model = self._build()
        _check_ends(model, self.splits.spec)
        if self._is_trained(0):
            evaluate.log_accuracy(model, self.splits.validation)
        model, models = _reloaded(model), {}
        samples = self.splits.samples.take(1)  # what they measure is of no use yet
        sources = [teacher.source for s in self.experiment.stages for teacher in s.teachers]
        before = measure(model)
        for stage in self.experiment.stages:
            prepared = stage.prepare(model, stage.epochs * self.splits.steps_per_epoch, samples)
            if stage.teachers:
                teachers = distill.loaded(stage.teachers, models.__getitem__)
                distill.attached(stage.name, prepared, stage.teachers, teachers, self.splits)
            model = stage.rehearsed(prepared)
            after = measure(model)
            self._check_order(stage, before, after)
            before = after
            if (stage.name, None) in sources:
                # A copy, since what a later stage wraps is wrapped in this model too.
                models[stage.name] = _reloaded(model)
            for variant in self.experiment.variants or export.sensible(activation_bits(model)):
                variant.check(model)

    def _check_order(self, stage: Stage, before: Facts, after: Facts) -> None:
        try:
            check_held(
                stage.name,
                before,
                after,
                trained=self._is_trained(0),  # no stage of a rehearsal trains
                scaled=stage.quantizes,
            )
        except RunError as error:
            raise ConfigError(
                f"{error} It would do so after training, too: put it before the stages whose "
                "work it loses, or leave it out."
            ) from error

    def train(self, index: int, stage: Stage) -> None:
        """Train one stage, check what it delivered, and save its model."""
        # Deferred, since its classes are Keras's: a refused run shall not wait for TensorFlow.
        from tfopt.rounding import left_float

        _LOG.info("stage %s: %d epochs.", stage.name, stage.epochs)
        folder, earlier = self.workdir / stage.name, self.experiment.stages[:index]
        keras.backend.clear_session()
        # By stage and not once: a resumed run must draw what an uninterrupted one draws.
        keras.utils.set_random_seed(self.experiment.seed + index)
        with self.strategy.scope():
            model = self._load(earlier[-1].name) if earlier else self._build()
            delivered = carry_out(
                stage,
                model,
                distill.loaded(stage.teachers, self._load),
                self.splits,
                first_epoch=sum(other.epochs for other in earlier),
                trained=self._is_trained(index),
                log_dir=self.workdir / "tensorboard" / stage.name,
                checkpoint_dir=folder / "epochs",
                logits_dir=self.workdir / "teachers",
            )
        save_model(delivered.model, folder / "model.h5")
        facts = {
            "name": stage.name,
            "seconds": delivered.seconds,
            "before": delivered.before.to_json(),
            "after": delivered.after.to_json(),
            "activation_bits": activation_bits(delivered.model),
            "left_float": left_float(delivered.model),
            "history": delivered.history,
        }
        write_atomically(folder / "stage.json", json.dumps(facts, indent=2))

    def report(self, stages: list[Stage]) -> None:
        """Write the report of `stages`, which are finished: their facts and proven artifacts."""
        folders = [self.workdir / stage.name for stage in stages]
        facts = [json.loads((folder / "stage.json").read_text()) for folder in folders]
        rows = [row for folder in folders for row in json.loads((folder / "rows.json").read_text())]
        asked, spec = self.experiment.to_json(), asdict(self.splits.spec)
        report.write(rows, facts, asked, spec, self.workdir)

    def prove(self, stage: Stage) -> list[dict]:
        """Export the stage's model in every variant and measure the bytes, each once."""
        path = self.workdir / stage.name / "rows.json"
        earlier = json.loads(path.read_text()) if path.exists() else []
        facts = json.loads((self.workdir / stage.name / "stage.json").read_text())
        variants = self.experiment.variants or export.sensible(facts["activation_bits"])
        # An earlier row holds for as long as its variant is the same and it reaches the limit.
        least = self.experiment.min_agreement
        proven = {
            json.dumps(row["asked"]): row
            for row in earlier
            if evaluate.agrees(row["agreement"], row.get("examples", 0), least)
        }
        asked = [json.dumps(plain(variant)) for variant in variants]
        missing = [v for v, key in zip(variants, asked, strict=True) if key not in proven]
        try:
            for row in self._measured(stage, missing):
                proven[json.dumps(row["asked"])] = row
        finally:
            # Also where one of them failed: the others hold, and the report shows them.
            rows = [proven[key] for key in asked if key in proven]
            if rows != earlier or not path.exists():
                write_atomically(path, json.dumps(rows, indent=2))
        names = [variant.name for variant in variants]
        for name in {row["variant"] for row in earlier} - set(names):
            (self.workdir / "artifacts" / f"{stage.name}_{name}.tflite").unlink(missing_ok=True)
        return rows

    def _measured(self, stage: Stage, variants: list) -> Iterator[dict]:
        """Yield a row for each of `variants`; `asked` in it says what the variant was."""
        if not variants:
            return
        model = self._load(stage.name)
        reference = evaluate.logits(model, self.splits.test)
        examples = self._representative(max(getattr(v, "examples", 1) for v in variants))
        for variant in variants:
            content = variant.convert(model, examples)
            artifact = export.Artifact(stage=stage.name, variant=variant.name, content=content)
            _LOG.info("artifact %s: %s bytes.", artifact.name, f"{len(content):,}")
            artifact.write(self.workdir / "artifacts")
            measured = evaluate.measure(
                artifact,
                model=model,
                test=self.splits.test,
                reference=reference,
                min_agreement=self.experiment.min_agreement,
            )
            yield {**measured.to_json(), "asked": plain(variant)}

    def _representative(self, count: int) -> np.ndarray:
        """Return at least `count` normalised examples of the training split, if it has them."""
        wanted = min(math.ceil(count / self.splits.batch_size), self.splits.steps_per_epoch)
        batches = self.splits.samples.take(wanted)
        return np.concatenate([examples.numpy() for examples, _ in batches])

    def _is_trained(self, index: int) -> bool:
        """Return whether the model that stage `index` gets comes from another stage or a file."""
        return index > 0 or hasattr(self.experiment.model, "load")

    def _build(self) -> "keras.Model":
        return self.experiment.model(self.splits.spec)

    def _load(self, stage: str) -> "keras.Model":
        return load_model(self.workdir / stage / "model.h5")
