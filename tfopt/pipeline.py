"""One run: data, model, strategy, then every stage the same way, each proven by its artifacts."""

import contextlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import answers, budget, evaluate, export, hosts, outcome, page, report
from tfopt.answers import Answers
from tfopt.checkpoint import (
    full_disk_is_an_error,
    load_model,
    remove,
    save_model,
    write_atomically,
)
from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.errors import RunError
from tfopt.export import saved
from tfopt.facts import activation_bits
from tfopt.loggers import Logger, logged
from tfopt.metadata import Description, attached
from tfopt.paths import located
from tfopt.rehearsal import build, is_trained, rehearse
from tfopt.runner import ArtifactError
from tfopt.spec import plain
from tfopt.stages import Stage, distill
from tfopt.stages.carry_out import carry_out
from tfopt.stages.train import Place
from tfopt.strategy import Devices, choose, is_tpu
from tfopt.workdir import alone_in, check_shared, check_workdir, claim, config_hash

_LOG = logging.getLogger(__name__)


def run(experiment: Experiment, workdir: str | Path, command: str = "") -> list[dict]:
    """Run `experiment` in `workdir` and return one row per artifact (stage x variant).

    The same call on the same `workdir`, a folder or an address as gs://bucket/run, goes on where
    an earlier one stopped. `command` is the command line that asks for it, which report.html tells.
    Of several hosts the chief alone has the rows, and proves what all have
    trained. Raises ConfigError before any training where the experiment can't be done, and
    RunError or ArtifactError where a stage or an artifact isn't what was asked for.
    """
    experiment.validate()
    workdir = located(workdir)
    with full_disk_is_an_error(workdir):
        check_workdir(workdir, experiment)
        devices = choose(
            experiment.strategy,
            experiment.replicas,
            timeout=experiment.cluster_timeout,
            tpu=experiment.tpu,
            mesh=experiment.mesh,
        )
        experiment.check_replicas(devices.replicas)
        if experiment.deterministic:
            tf.config.experimental.enable_op_determinism()
        splits = experiment.data.load(experiment.global_batch(devices.replicas))
        with (
            hosts.a_lost_one_is_an_error(devices.strategy),
            logged(experiment.loggers, workdir) as logger,
        ):
            return _Run(experiment, workdir, devices, splits, logger, command).all_stages()


@dataclass(frozen=True, slots=True)
class _Run:
    """What all stages of one run share."""

    experiment: Experiment
    workdir: Path
    devices: Devices
    splits: Any
    logger: Logger
    command: str

    def all_stages(self) -> list[dict]:
        """Train and prove every stage, write the report, and return its rows on the chief."""
        with alone_in(self.workdir) if self.is_chief else contextlib.nullcontext():
            return self._all_stages()

    def _all_stages(self) -> list[dict]:
        stages, rows = self.experiment.stages, []
        if not all(map(self.is_finished, stages)):
            rehearse(self.experiment, self.splits)
        # Not earlier: a run that was refused shall leave the folder free for the corrected one.
        if self.is_chief:
            claim(self.workdir, self.experiment)
            self.logger.hparams(outcome.flat(self.experiment.to_json()))
        self.meet()
        with self.devices.strategy.scope():
            check_shared(self.workdir)
        for index, stage in enumerate(stages):
            if self.is_finished(stage):
                _LOG.info("stage %s: was finished before.", stage.name)
            else:
                self.train(index, stage)
            if self.is_chief:
                rows += self.conclude(index, stage)
        if self.is_chief:
            self.end(rows)
        self.meet()
        return rows

    @property
    def is_chief(self) -> bool:
        """Whether this process writes, of those that run this together."""
        with self.devices.strategy.scope():
            return hosts.is_chief()

    def meet(self) -> None:
        """Return when all hosts have come here."""
        with self.devices.strategy.scope():
            hosts.meet()

    def is_finished(self, stage: Stage) -> bool:
        """Return whether `stage` was trained, checked and saved, as all hosts see it."""
        mine = (self.workdir / stage.name / "stage.json").exists()
        with self.devices.strategy.scope():
            return all(hosts.all_say(int(mine)))

    def train(self, index: int, stage: Stage) -> None:
        """Train one stage, check what it delivered, and save its model."""
        # Deferred, since its classes are Keras's: a refused run shall not wait for TensorFlow.
        from tfopt.rounding import left_float

        _LOG.info("stage %s: epochs: %d.", stage.name, stage.epochs)
        folder, earlier = self.workdir / stage.name, self.experiment.stages[:index]
        keras.backend.clear_session()
        # By stage and not once: a resumed run must draw what an uninterrupted one draws.
        keras.utils.set_random_seed(self.experiment.seed + index)
        with self.devices.strategy.scope():
            model = self._load(earlier[-1].name) if earlier else self._build()
            weights = page.sampled(model)
            delivered = carry_out(
                stage,
                model,
                distill.loaded(stage.teachers, self._load),
                self.splits,
                Place(
                    workdir=self.workdir,
                    first_epoch=sum(other.epochs for other in earlier),
                    trained=index > 0 or is_trained(self.experiment.model),
                    mixed=self.experiment.is_mixed(on_tpu=is_tpu(self.devices.strategy)),
                    scale=self.experiment.learning_rate_scale(self.devices.replicas),
                    mesh=self.devices.mesh,
                    logger=self.logger if self.is_chief else None,
                    profile=self.experiment.profile,
                ),
            )
        if self.is_chief:
            # Of an earlier training, whose folder somebody has deleted.
            saved.discard(self.workdir / "artifacts", stage.name)
        save_model(delivered.model, folder / "model.h5", writes=self.is_chief)
        facts = {
            "name": stage.name,
            "seconds": delivered.seconds,
            "waited": delivered.waited,
            "mesh": delivered.mesh,
            "before": delivered.before.to_json(),
            "after": delivered.after.to_json(),
            "activation_bits": activation_bits(delivered.model),
            "left_float": left_float(delivered.model),
            "history": delivered.history,
            "weights": page.histograms(weights, page.sampled(delivered.model)),
        }
        if self.is_chief:
            write_atomically(folder / "stage.json", json.dumps(facts, indent=2))
        self.meet()

    def conclude(self, index: int, stage: Stage) -> list[dict]:
        """Prove the finished `stage`; where an artifact fails, report what there is."""
        # Here and not in train: a kill between its last two lines would leave them for ever.
        remove(Place(workdir=self.workdir).checkpoints(stage))
        try:
            return self.prove(stage)
        except ArtifactError as error:
            self.report(self.experiment.stages[: index + 1], ended_by=str(error))
            raise

    def end(self, rows: list[dict]) -> None:
        """Report all; raise RunError where no artifact of the last stage is within the budget."""
        stages = self.experiment.stages
        last = [row for row in rows if row["stage"] == stages[-1].name]
        try:
            budget.check(self.experiment.budget, last, self.workdir / "artifacts")
        except RunError as error:
            self.report(stages, ended_by=str(error))
            raise
        self.report(stages)

    def report(self, stages: list[Stage], ended_by: str = "") -> None:
        """Write and log the report of `stages`, which are finished: facts and proven artifacts.

        `ended_by` says what ended the run before its end.
        """
        folders = [self.workdir / stage.name for stage in stages]
        facts = [json.loads((folder / "stage.json").read_text()) for folder in folders]
        rows = [row for folder in folders for row in json.loads((folder / "rows.json").read_text())]
        asked, spec = self.experiment.to_json(), asdict(self.splits.spec)
        content = report.write(rows, facts, asked, spec, self.workdir, ended_by)
        outcome.log(self.logger, rows, self.workdir, self.splits.spec.class_names)
        page.write(content, self.workdir, self.splits, self.command)

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
        artifacts = self.workdir / "artifacts"
        unsaved = not saved.is_written(artifacts, stage.name)
        model = self._load(stage.name) if missing or unsaved else None
        if unsaved:
            saved.write(model, artifacts, stage.name)
        try:
            for row in self._measured(stage, model, missing):
                proven[json.dumps(row["asked"])] = row
        finally:
            # Also where one of them failed: the others hold, and the report shows them.
            rows = [proven[key] for key in asked if key in proven]
            if rows != earlier or not path.exists():
                write_atomically(path, json.dumps(rows, indent=2))
        names = [variant.name for variant in variants]
        for name in {row["variant"] for row in earlier} - set(names):
            (artifacts / f"{stage.name}_{name}.tflite").unlink(missing_ok=True)
        answers.keep_only(path.parent, names)
        return rows

    def _measured(self, stage: Stage, model: Any, variants: list) -> Iterator[dict]:
        """Yield a row for each of `variants` of `model`; `asked` in it says what it was."""
        if not variants:
            return
        reference = evaluate.logits(model, self.splits.test)
        folder = self.workdir / stage.name
        Answers(*reference).write(folder, answers.KERAS)
        examples = self._representative(max(getattr(v, "examples", 1) for v in variants))
        for variant in variants:
            content = variant.convert(model, examples)
            artifact = export.Artifact(stage=stage.name, variant=variant.name, content=content)
            _LOG.info("artifact %s: %s bytes.", artifact.name, f"{len(content):,}")
            artifact.write(self.workdir / "artifacts")
            outputs = evaluate.answers(artifact, model, self.splits.test)
            answered = Answers(outputs, reference[1])
            answered.write(folder, variant.name)
            # Before all else is measured: that shall be of the file as it is.
            artifact = replace(artifact, content=self._described(artifact, answered))
            artifact.write(self.workdir / "artifacts")
            measured = evaluate.measure(
                artifact,
                outputs=outputs,
                model=model,
                test=self.splits.test,
                reference=reference,
                min_agreement=self.experiment.min_agreement,
                keeps=hasattr(variant, "exclude"),
            )
            yield {**measured.to_json(), "asked": plain(variant)}

    def _described(self, artifact: export.Artifact, answered: Answers) -> bytes:
        """Return the bytes of `artifact` with what it is and what it `answered` in them."""
        spec = self.splits.spec
        description = Description(
            config=self.experiment.name,
            config_hash=config_hash(self.experiment),
            stage=artifact.stage,
            variant=artifact.variant,
            accuracy=answered.accuracy,
            examples=len(answered.labels),
            shape=tuple(spec.shape),
            class_names=tuple(spec.class_names),
            normalisation=spec.normalisation,
            front_end=spec.front_end,
        )
        return attached(artifact.content, description)

    def _representative(self, count: int) -> np.ndarray:
        """Return at least `count` normalised examples of the training split, if it has them."""
        wanted = min(math.ceil(count / self.splits.batch_size), self.splits.steps_per_epoch)
        batches = self.splits.samples.take(wanted)
        return np.concatenate([examples.numpy() for examples, _ in batches])

    def _build(self) -> "keras.Model":
        return build(self.experiment, self.splits.spec)

    def _load(self, stage: str) -> "keras.Model":
        return load_model(self.workdir / stage / "model.h5")
