"""A finished stage as files, each proven: exported, described, run and measured, once."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import answers, evaluate, export, report
from tfopt.answers import Answers
from tfopt.checkpoint import load_model, write_atomically
from tfopt.config import Experiment
from tfopt.export import saved
from tfopt.paths import size
from tfopt.spec import plain
from tfopt.stages import Stage
from tfopt.tflite.c_array import remove_c_array
from tfopt.tflite.metadata import Description, attached
from tfopt.workdir import config_hash

_LOG = logging.getLogger(__name__)


def prove(stage: Stage, experiment: Experiment, workdir: Path, splits: Any) -> list[dict]:
    """Export the model of `stage`, measure what is missing, and return a row per variant.

    Its .tflite files go to `workdir`/artifacts, and with them its SavedModel and its Keras file.
    Raises ArtifactError where a file isn't what its Keras model is; the others' rows are kept.
    """
    folder, artifacts = workdir / stage.name, workdir / "artifacts"
    path = folder / "rows.json"
    earlier = json.loads(path.read_text()) if path.exists() else []
    facts = json.loads((folder / "stage.json").read_text())
    variants = experiment.variants or export.sensible(facts["activation_bits"])
    proven = {
        json.dumps(row["asked"]): row
        for row in earlier
        if _holds(row, artifacts, experiment.min_agreement)
    }
    asked = [json.dumps(plain(variant)) for variant in variants]
    missing = [v for v, key in zip(variants, asked, strict=True) if key not in proven]
    unsaved = not saved.is_written(artifacts, stage.name)
    model = load_model(folder / "model.h5") if missing or unsaved else None
    if unsaved:
        saved.write(model, artifacts, stage.name)
    # Before the rows are written: what a kill leaves behind them would stay for ever.
    names = [variant.name for variant in variants]
    _remove_others(artifacts, stage.name, names, [other.name for other in experiment.stages])
    answers.keep_only(folder, names)
    try:
        if missing:
            for row in _Prover(stage, experiment, workdir, splits, model).rows(missing):
                proven[json.dumps(row["asked"])] = row
    finally:
        # Also where one of them failed: the others hold, and the report shows them.
        rows = [proven[key] for key in asked if key in proven]
        if rows != earlier or not path.exists():
            write_atomically(path, json.dumps(rows, indent=2))
    return rows


def _holds(row: dict, artifacts: Path, least: float) -> bool:
    """Return whether an earlier `row` is still that of a file that is there and good enough."""
    path = artifacts / f"{report.name_of(row)}.tflite"
    agreed = evaluate.agrees(row["agreement"], row.get("examples", 0), least)
    return agreed and path.exists() and size(path) == row["bytes"]


def _remove_others(artifacts: Path, stage: str, variants: list[str], stages: list[str]) -> None:
    """Remove from `artifacts` the files of `stage`, one of `stages`, in other `variants`."""
    kept = {f"{stage}_{name}" for name in variants}
    for path in artifacts.glob(f"{stage}_*.tflite"):
        # The name of another stage may begin with this one's.
        owner = max((s for s in stages if path.name.startswith(f"{s}_")), key=len)
        if owner == stage and path.stem not in kept:
            remove_c_array(artifacts, path.stem)
            path.unlink()


@dataclass(frozen=True, slots=True)
class _Prover:
    stage: Stage
    experiment: Experiment
    workdir: Path
    splits: Any
    model: Any

    def rows(self, variants: list) -> Iterator[dict]:
        """Yield a row for each of `variants`; `asked` in it says what it was."""
        reference = Answers(*evaluate.logits(self.model, self.splits.test))
        reference.write(self.workdir / self.stage.name, answers.KERAS)
        examples = self._representative(max(getattr(v, "examples", 1) for v in variants))
        for variant in variants:
            measured = self._measured(variant, examples, reference)
            yield {**measured.to_json(), "asked": plain(variant)}

    def _measured(
        self, variant: Any, examples: np.ndarray, reference: Answers
    ) -> evaluate.Measurement:
        content = variant.convert(self.model, examples)
        artifact = export.Artifact(stage=self.stage.name, variant=variant.name, content=content)
        # Before anything is measured, so that one that fails can be looked at.
        artifact.write(self.workdir / "artifacts")
        remove_c_array(self.workdir / "artifacts", artifact.name)  # it is of another file now
        outputs = evaluate.answers(artifact, self.model, self.splits.test)
        answered = Answers(outputs, reference.labels)
        answered.write(self.workdir / self.stage.name, variant.name)
        # All else is measured of the file as it is, with what it says of itself in it.
        artifact = replace(artifact, content=attached(content, self._of(artifact, answered)))
        artifact.write(self.workdir / "artifacts")
        _LOG.info("artifact %s: %s bytes.", artifact.name, f"{len(artifact.content):,}")
        return evaluate.measure(
            artifact,
            outputs=outputs,
            model=self.model,
            test=self.splits.test,
            reference=(reference.logits, reference.labels),
            min_agreement=self.experiment.min_agreement,
            keeps=hasattr(variant, "exclude"),
        )

    def _of(self, artifact: export.Artifact, answered: Answers) -> Description:
        return Description.of(
            self.splits.spec,
            config=self.experiment.name,
            config_hash=config_hash(self.experiment),
            stage=artifact.stage,
            variant=artifact.variant,
            accuracy=answered.accuracy,
            examples=len(answered.labels),
        )

    def _representative(self, count: int) -> np.ndarray:
        """Return at least `count` normalised examples of the training split, if it has them."""
        wanted = min(math.ceil(count / self.splits.batch_size), self.splits.steps_per_epoch)
        batches = self.splits.samples.take(wanted)
        return np.concatenate([examples.numpy() for examples, _ in batches])
