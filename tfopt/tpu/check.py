"""Whether each stage of an experiment compiles for TPUs, fits, and how fast it may be."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tfopt.checkpoint import reloaded
from tfopt.compat import tf
from tfopt.config import Experiment
from tfopt.errors import ConfigError
from tfopt.rehearsal import build, is_trained
from tfopt.stages import Stage, distill
from tfopt.stages.precision import for_stage, for_teachers, in_full
from tfopt.stages.ready import ready
from tfopt.strategy import logical_cpus
from tfopt.tpu.chips import Slice
from tfopt.tpu.pretended import pretended
from tfopt.tpu.step import NotForTPUError, lowered, traced

_OVER = re.compile(r"Used ([\d.]+\w?) of ([\d.]+\w?) hbm", re.IGNORECASE)
_NEEDS = "it needs"
_MOST = 2**17


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What Google's compiler says of the training step of one stage on one slice.

    Bytes and FLOPs are those of one replica, which has `batch` examples of a step: `weights`
    and `optimizer` stay in HBM, `activations` is what the step needs beside them, `program` its
    code. `reduced_bytes` go through `all_reduces` in each step. `refused` says why there is
    no program, and then the other figures are 0. `largest_batch` was searched for if it isn't 0.
    """

    stage: str
    topology: str
    replicas: int
    batch: int
    refused: str = ""
    hbm: int = 0
    weights_bytes: int = 0
    optimizer_bytes: int = 0
    activations_bytes: int = 0
    program_bytes: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    all_reduces: int = 0
    reduced_bytes: int = 0
    step_seconds: float = 0.0
    bound_by: str = ""
    largest_batch: int = 0

    @property
    def examples_per_second(self) -> float:
        """All replicas together, as fast as the roofline allows."""
        return self.batch * self.replicas / self.step_seconds if self.step_seconds else 0.0

    @property
    def used_bytes(self) -> int:
        """What of the HBM is taken."""
        parts = (self.weights_bytes, self.optimizer_bytes, self.activations_bytes)
        return sum(parts) + self.program_bytes

    def to_json(self) -> dict:
        """Return the figures as plain JSON values."""
        own = {"used_bytes": self.used_bytes, "examples_per_second": self.examples_per_second}
        return {**asdict(self), **own}


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What `fit` would train in one stage, and what it takes of its examples."""

    stage: Stage
    model: Any
    spec: Any
    strategy: Any

    def program(self, batch: int) -> str:
        """Return the step of `batch` examples on a replica in StableHLO; raises NotForTPUError."""
        examples: Any = tf.TensorSpec((batch, *self.spec.shape))
        cached = sum(teacher.cached for teacher in self.stage.teachers)
        if cached:
            examples = (examples, *[tf.TensorSpec((batch, self.spec.classes))] * cached)
        labels = tf.TensorSpec((batch,), tf.int32)
        return lowered(traced(self.model, (examples, labels), self.strategy))


def check(experiment: Experiment, slices: list[Slice], *, largest: bool = False) -> Iterator:
    """Yield as `Checked` what each stage that trains comes to on each of `slices`.

    With `largest` the largest batch that fits is searched too, by about eight compilations each.
    Must come before TensorFlow has run anything; raises ConfigError for a batch that doesn't
    divide. The stages are chained as in a run, with weights that are not trained.
    """
    logical_cpus(max(each.replicas for each in slices))
    for replicas in sorted({each.replicas for each in slices}):
        experiment.check_replicas(replicas)
        splits = experiment.data.load(experiment.global_batch(replicas))
        batch = splits.batch_size // replicas
        for fitted in _fitted(experiment, splits, pretended(replicas)):
            for each in slices:
                if each.replicas == replicas:
                    found = _checked(fitted, each, batch)
                    if largest:
                        found = replace(found, largest_batch=_largest(fitted, each, found))
                    yield found


def _fitted(experiment: Experiment, splits: Any, strategy: Any) -> Iterator[_Fitted]:
    models: dict[str, Any] = {}
    with strategy.scope():
        model = build(experiment, splits.spec)
        for index, stage in enumerate(experiment.stages):
            mixed = experiment.is_mixed(on_tpu=True)
            model = for_stage(stage, model, mixed=mixed)
            prepared = stage.prepare(model, stage.epochs * splits.steps_per_epoch, splits.samples)
            teachers = distill.loaded(stage.teachers, models.__getitem__)
            teachers = for_teachers(stage, teachers, mixed=mixed)
            if stage.epochs:
                options = {
                    "trained": index > 0 or is_trained(experiment.model),
                    "scale": experiment.learning_rate_scale(strategy.num_replicas_in_sync),
                }
                fitted = ready(stage, prepared, teachers, splits, **options)
                yield _Fitted(stage, fitted, splits.spec, strategy)
            model = in_full(stage.rehearsed(prepared))
            # A copy, since a teacher is frozen.
            models[stage.name] = reloaded(model)


def _checked(fitted: _Fitted, at: Slice, batch: int) -> Checked:
    place: dict[str, Any] = {
        "stage": fitted.stage.name,
        "topology": at.name,
        "replicas": at.replicas,
        "batch": batch,
        "hbm": int(at.chip.hbm / at.chip.cores),
    }
    try:
        answer = _answer(fitted.program(batch), at)
    except NotForTPUError as error:
        return Checked(**place, refused=str(error))
    return Checked(**place, **_figures(fitted.model, answer, at))


def _largest(fitted: _Fitted, at: Slice, found: Checked) -> int:
    """Return the largest batch of a replica that fits, to an eighth; 0 where none does."""
    if found.refused and not found.refused.startswith(_NEEDS):
        return 0  # for an operator, which no TPU has at any batch
    best, fails = (None, found.batch) if found.refused else (found, _MOST)
    while fails - (fits := best.batch if best else 0) > max(fits // 8, 1):
        tried = _checked(fitted, at, _next(best, fails))
        best, fails = (best, tried.batch) if tried.refused else (tried, fails)
    return fits


def _next(best: Checked | None, fails: int) -> int:
    """Return the batch to try after `best`, which fits, where `fails` doesn't.

    Activations grow with the batch, so `best` tells about how many more there is room for. Where
    that was too many, the middle.
    """
    if best is None or fails < _MOST:
        return ((best.batch if best else 0) + fails) // 2
    room = best.hbm - best.used_bytes + best.activations_bytes
    guess = int(best.batch * room / max(best.activations_bytes, 1))
    return min(max(guess, best.batch + best.batch // 8 + 1), fails - 1)


def _size(variables: list) -> int:
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


def _answer(text: str, at: Slice) -> dict:
    """Return what the compiler says of a program; it runs in a process without TensorFlow.

    Raises NotForTPUError where it refuses the program, and ConfigError where it isn't there.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "step.mlir"
        file.write_text(text)
        command = [sys.executable, "-m", "tfopt.tpu.compile", at.name, str(at.replicas), str(file)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = (process.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise ConfigError(
            f"expected Google's TPU compiler, received {last!r}; pip install 'tfopt[tpu-check]'."
        )
    answer = json.loads(lines[-1])
    if error := answer.get("error", ""):
        used = _OVER.search(error)
        first = error.strip().splitlines()[0]
        raise NotForTPUError(f"{_NEEDS} {used[1]} of {used[2]} of HBM" if used else first)
    return answer


def _figures(model: Any, answer: dict, at: Slice) -> dict[str, Any]:
    """Return the fields of `Checked` that tell what the compiled step takes.

    The step's time is that of the slowest of computing, of reading and writing HBM, and of the
    links (a ring all-reduce sends and receives each byte twice: Patarasuk and Yuan 2009).
    """
    chip, ring = at.chip, 2 * (at.replicas - 1) / at.replicas
    seconds = {
        "compute": answer["flops"] / (chip.flops / chip.cores),
        "memory": answer["bytes"] / (chip.bandwidth / chip.cores),
        "links": ring * answer["all_reduce_bytes"] / (chip.links / chip.cores / 2),
    }
    bound_by = max(seconds, key=lambda name: seconds[name])
    weights, optimizer = _size(model.variables), _size(model.optimizer.variables)
    beside = answer["arguments_bytes"] + answer["temporary_bytes"]
    beside += answer["outputs_bytes"] - answer["aliased_bytes"]
    return {
        "weights_bytes": weights,
        "optimizer_bytes": optimizer,
        "activations_bytes": max(beside - weights - optimizer, 0),
        "program_bytes": answer["program_bytes"],
        "flops": answer["flops"],
        "bytes": answer["bytes"],
        "all_reduces": answer["all_reduces"],
        "reduced_bytes": answer["all_reduce_bytes"],
        "step_seconds": seconds[bound_by],
        "bound_by": bound_by,
    }
