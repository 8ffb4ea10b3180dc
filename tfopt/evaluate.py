"""TFLite bytes -> accuracy, agreement, size, sparsity, coverage, latency, through LiteRT."""

import logging
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfopt import facts
from tfopt.answers import Answers
from tfopt.benchmark import timed
from tfopt.compat import keras, tf
from tfopt.debugger import Noise, debug, layer_errors
from tfopt.export import Artifact
from tfopt.export.inputs import Examples, by_name, first
from tfopt.runner import ArtifactError, Runner
from tfopt.stages.hold import Counts, lost_on_the_way
from tfopt.tflite import flatbuffer, flatgraph, micro

_LOG = logging.getLogger(__name__)
_WARM_UP, _RUNS = 20, 200
# Rounding to int8 costs a few percent per layer; a broken layer is off by its own size.
_PARTED = 0.25
_PROBED = 32
_INTEGERS = ("int8", "int16", "hybrid")
REFERENCE_KERNELS = (
    "on a CPU its int16 operators run on reference kernels, about 100 times as slow as int8; its "
    "latency here tells nothing of an accelerator's."
)

NOTHING_LEFT = (
    "it names the classes hardly better than always the most frequent one would: ask less of the "
    "stages before it, or train for longer."
)
NO_SMALLER = (
    "what each operator takes beside its weights is more than rounding saves; of a loop that is "
    "written out step by step, shorten the sequences, else keep the float32 file."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one artifact's bytes; sizes in bytes, latencies in microseconds.

    `accuracy`, `agreement` (share of the `examples` of the test split with the Keras model's top
    class) and `sparsity` are between 0 and 1. Latency is at batch 1 on one thread.
    `float_bytes` is what the model's weights alone take in float32: a compressed file that has
    no fewer bytes isn't one. `arena_bytes` is what a microcontroller needs for the activations,
    None where TensorFlow Lite Micro can't run the file, of which `micro_refused` says why, "" where
    it can. `chance` is the accuracy of always naming the most frequent class. `layers` are those
    of an artifact that computes with integers.
    """

    stage: str
    variant: str
    examples: int
    accuracy: float
    keras_accuracy: float
    chance: float
    agreement: float
    max_logit_difference: float
    bytes: int
    gzip_bytes: int
    sparsity: float
    float_bytes: int
    arena_bytes: int | None
    micro_refused: str
    ops_int8: int
    ops_int16: int
    ops_hybrid: int
    ops_float: int
    float_ops: tuple[str, ...]
    latency_median_us: float
    latency_p90_us: float
    kernels: tuple[flatgraph.Kernel, ...]
    layers: tuple[Noise, ...]

    @property
    def integer_ops(self) -> int:
        """The number of operators that compute with integers, if only with kernels of them."""
        return sum(getattr(self, f"ops_{kind}") for kind in _INTEGERS)

    @property
    def is_chance(self) -> bool:
        """Whether the accuracy is that of naming one class always, give or take what luck does."""
        luck = 2 * math.sqrt(self.chance * (1 - self.chance) / self.examples)
        return self.accuracy <= self.chance + luck

    def to_json(self) -> dict:
        """Return the measurement as plain JSON values: one row of the report."""
        return asdict(self) | {
            "is_chance": self.is_chance,
            "float_ops": list(self.float_ops),
            "kernels": [asdict(k) | {"shape": list(k.shape)} for k in self.kernels],
            "layers": [asdict(noise) for noise in self.layers],
        }


def logits(model: "keras.Model", test: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the Keras model's logits, (n, classes), and the labels, (n,), of the test split.

    `test` yields (examples, labels, weights); rows of weight 0 are dropped. The examples of a
    model with several inputs are a dict of arrays by input, or a tuple in their order.
    """
    functional: Any = model
    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in functional.inputs]
    nested = functional._nested_inputs

    def call(*tensors: Any) -> Any:
        return model(tf.nest.pack_sequence_as(nested, tensors), training=False)

    predict = tf.function(call, input_signature=signature).get_concrete_function()
    found = []
    for examples, labels, real in _batches(model, test):
        given = zip(examples.values(), signature, strict=True)
        tensors = [tf.constant(values, like.dtype) for values, like in given]
        found.append((predict(*tensors).numpy()[real], labels[real]))
    outputs, labels = zip(*found, strict=True)
    return np.concatenate(outputs), np.concatenate(labels).reshape(-1)


def answers(artifact: Artifact, model: "keras.Model", test: Any) -> np.ndarray:
    """Return the logits, (n, classes), of `artifact`, made of `model`, on the test split.

    They are in the order of `logits(model, test)`. Raises ArtifactError where LiteRT can't run it.
    """
    run = Runner(artifact, threads=os.cpu_count() or 1)
    return np.concatenate([run(x)[real] for x, _, real in _batches(model, test)])


def measure(
    artifact: Artifact,
    *,
    outputs: np.ndarray,
    model: "keras.Model",
    test: Any,
    reference: tuple[np.ndarray, np.ndarray],
    min_agreement: float = 0.95,
    keeps: bool = True,
) -> Measurement:
    """Measure the bytes of `artifact` on the whole test split.

    `outputs` is what `answers(artifact, model, test)` returned, `reference` what `logits(model,
    test)` did. Raises ArtifactError where LiteRT can't run the artifact, or where it doesn't agree
    with the Keras model (see `agrees`), of which `model` tells at which layer they part, or lacks
    zeros or shared values that its kernels have. `keeps` says whether the variant can keep layers
    float.
    """
    expected, labels = reference
    same = (outputs.argmax(-1) == expected.argmax(-1)) & np.isfinite(outputs).all(-1)
    if not agrees(float(same.mean()), len(same), min_agreement):
        raise ArtifactError(
            f"artifact {artifact.name!r}: expected agreement with the Keras model of at least "
            f"{min_agreement:.1%}, measured {same.mean():.1%} of {len(same):,}; "
            f"{_parting(artifact, model, test)}, or accept it with "
            f"config.min_agreement={np.floor(100 * same.mean()) / 100:g}: the same command goes on "
            "without training again."
        )
    graph = flatbuffer.read(artifact.content)
    kernels, operators, held = graph.kernels(), _operators(graph), facts.measure(model)
    _check_arrived(artifact.name, held.kernels, kernels)
    fit = micro.fit(artifact.content, graph)
    examples, *_ = next(_batches(model, test))
    median, p90 = latency(artifact, {name: values[:1] for name, values in examples.items()})
    integers = sum(operators[f"ops_{kind}"] for kind in _INTEGERS)
    measured = Measurement(
        stage=artifact.stage,
        variant=artifact.variant,
        examples=len(same),
        accuracy=Answers(outputs, labels).accuracy,
        keras_accuracy=Answers(expected, labels).accuracy,
        chance=float(np.bincount(labels).max() / len(labels)),
        agreement=float(same.mean()),
        max_logit_difference=float(np.abs(outputs - expected).max()),
        bytes=len(artifact.content),
        gzip_bytes=flatbuffer.gzip_size(artifact.content),
        sparsity=facts.sparsity(kernels),
        float_bytes=4 * held.params,
        arena_bytes=fit.arena_bytes,
        micro_refused=next(iter(fit.refused), ""),
        latency_median_us=median,
        latency_p90_us=p90,
        kernels=kernels,
        layers=debug(artifact, model, _probed(model, test), keeps=keeps) if integers else (),
        **operators,
    )
    _warn(artifact.name, measured)
    return measured


def _check_arrived(name: str, held: Iterable, stored: Iterable[flatgraph.Kernel]) -> None:
    """Raise ArtifactError where zeros or shared values of the `held` kernels aren't `stored`."""
    counts = [Counts(kernel.name, kernel.size, kernel.zeros, kernel.codes) for kernel in stored]
    for where, what, had, has in lost_on_the_way(held, counts):
        raise ArtifactError(
            f"artifact {name!r}: expected the {had:,} {what} of {where} to stay, measured {has:,}; "
            "the variant lost what a stage had won: choose another one in config.variants, the "
            "same command goes on without training again."
        )


def _warn(name: str, measured: Measurement) -> None:
    """Log what the user of the artifact `name` would not expect."""
    if measured.ops_int16:
        _LOG.warning("artifact %s: %s", name, REFERENCE_KERNELS)
    if measured.is_chance:
        _LOG.warning("artifact %s: %s", name, NOTHING_LEFT)
    if measured.integer_ops and measured.bytes >= measured.float_bytes:
        _LOG.warning(
            "artifact %s: %s bytes are no fewer than the %s of the weights in float32: %s",
            *(name, f"{measured.bytes:,}", f"{measured.float_bytes:,}", NO_SMALLER),
        )


def _operators(graph: flatgraph.Graph) -> dict[str, Any]:
    """Return the fields of a measurement that say in what the operators of `graph` compute."""
    of = {kind: graph.with_precision(kind) for kind in ("int8", "int16", "hybrid", "float")}
    counts = {f"ops_{kind}": len(operators) for kind, operators in of.items()}
    return {**counts, "float_ops": tuple(operator.label for operator in of["float"])}


def agrees(agreement: float, examples: int, least: float) -> bool:
    """Return whether `agreement` on so many `examples` is at `least` what was asked for.

    One example that differs is always allowed: a near tie is no defect, and in a split of 30 it
    is 3% by itself.
    """
    return agreement >= least or round((1 - agreement) * examples) <= 1


def log_accuracy(model: "keras.Model", validation: Any) -> None:
    """Log what a `model` that comes from a file has on the validation split, untrained."""
    found = Answers(*logits(model, validation))
    _LOG.info(
        "config.model: the loaded model has %.1f%% on the validation split; if that is less than "
        "you know it has, it was trained on inputs of another scale: set data.mean and data.std.",
        100 * found.accuracy,
    )


def latency(artifact: Artifact, example: Any, runs: int = _RUNS) -> tuple[float, float]:
    """Return median and 90th percentile of `runs` runs in µs, at batch 1 on one thread.

    `example` is a batch of one, as `Runner` takes it: a made-up one may be no word of a table.
    """
    run = Runner(artifact, threads=1)
    run(example)
    for _ in range(_WARM_UP):
        run.interpreter.invoke()
    median, p90 = np.percentile(list(timed(run.interpreter, runs)), (50, 90))
    return float(median), float(p90)


def _batches(model: Any, test: Any) -> Iterator[tuple[Examples, np.ndarray, np.ndarray]]:
    for examples, labels, weights in test:
        yield by_name(model, examples), np.asarray(labels), np.asarray(weights).reshape(-1) > 0


def _probed(model: Any, test: Any) -> Examples:
    examples, _, real = next(_batches(model, test))
    return first({name: values[real] for name, values in examples.items()}, _PROBED)


def _parting(artifact: Artifact, model: "keras.Model", test: Any) -> str:
    """Return where artifact and model part: the first layer whose output is off."""
    errors = layer_errors(artifact, model, _probed(model, test))
    parted = [(layer, error) for layer, error in errors.items() if not error <= _PARTED]
    if parted:
        layer, error = parted[0]
        return (
            f"they part at layer {layer!r}, whose output is off by {error:.0%}; repair that layer"
        )
    layer, error = max(errors.items(), key=lambda item: item[1])
    return (
        f"no single layer is wrong, errors grow to {error:.0%} at {layer!r}, so these examples "
        "are near ties; train for longer"
    )
