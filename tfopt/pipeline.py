"""One run: data, model, strategy, then every stage the same way, each proven by its artifacts."""

import contextlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfopt import budget, hosts, outcome, page, report
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
from tfopt.paths import located
from tfopt.proof import prove
from tfopt.rehearsal import build, is_trained, rehearse
from tfopt.runner import ArtifactError
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
            return prove(stage, self.experiment, self.workdir, self.splits)
        except ArtifactError as error:
            self.report(self.experiment.stages[: index + 1], ended_by=str(error))
            raise

    def end(self, rows: list[dict]) -> None:
        """Report all; raise RunError where no artifact of the last stage is within the budget."""
        stages = self.experiment.stages
        try:
            budget.check(self.experiment.budget, rows, self.workdir / "artifacts")
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
        best = budget.best(self.experiment.budget, rows)
        content = report.write(
            rows,
            facts,
            self.experiment.to_json(),
            asdict(self.splits.spec),
            self.workdir,
            best=best,
            config_hash=config_hash(self.experiment),
            ended_by=ended_by,
        )
        page.write(content, self.workdir, self.splits, self.command)
        outcome.log(self.logger, rows, best, self.workdir, self.splits.spec.class_names)

    def _build(self) -> "keras.Model":
        return build(self.experiment, self.splits.spec)

    def _load(self, stage: str) -> "keras.Model":
        return load_model(self.workdir / stage / "model.h5")
