"""Examples per second of every kind of stage against plain Keras, as ratios of one run.

    python tests/benchmarks/train_speed.py [--rounds=3] [--epochs=4] [--examples=7424]

Two baselines train the same ResNet-8 on the same images with `model.fit`: over tf.data as
tutorials write it, which stalls whenever an iterator ends, and over tf.data without the
autotuner, which doesn't. Rounds are interleaved, and a ratio is always taken within a round,
so that the drift of a shared machine falls out. An epoch is timed from its begin to the
begin of the next, with all that belongs to it: validation, TensorBoard, checkpoint; the
first epoch of a fit, which traces, is left out. Stages without epochs have their `prepare`
timed, as a number of epochs of the stage `train` in the same round.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tabulate

from tfopt.compat import keras, tf
from tfopt.data import Splits, from_arrays
from tfopt.models import ResNet
from tfopt.spec import spec
from tfopt.stages import (
    EMA,
    Cluster,
    CorrectBias,
    Equalize,
    Features,
    OneShotPrune,
    Prune,
    Quantize,
    Shrink,
    Stage,
    Teacher,
    Teachers,
    distill,
)
from tfopt.stages.train import Place, train

BATCH = 128
REWRITING = OneShotPrune(sparsity=0.5), Equalize(), CorrectBias()


class Clock(keras.callbacks.Callback):
    """The times at which epochs begin, and the training ends."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        self.times.append(time.perf_counter())

    def on_train_end(self, logs=None):
        self.times.append(time.perf_counter())


def timed(kind):
    """Return the stage class `kind` with a clock that starts before its other callbacks."""

    @spec
    class Timed(kind):
        clock: object = None

        def callbacks(self, log_dir):
            return [self.clock, *kind.callbacks(self, log_dir)]

    return Timed


def data(examples: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 32, 32, 3), np.uint8)
    return images, (np.arange(examples) % 10).astype(np.int32)


def tutorial(splits: Splits, arrays: tuple, autotune: bool) -> "tf.data.Dataset":
    norm = splits.spec.normalisation
    mean, std = np.float32(norm.mean), np.float32(norm.std)

    def normalise(image, label):
        return (tf.cast(image, tf.float32) - mean) / std, label

    parallel = tf.data.AUTOTUNE if autotune else os.cpu_count()
    stream = tf.data.Dataset.from_tensor_slices(arrays).cache().shuffle(len(arrays[1]))
    stream = stream.map(normalise, num_parallel_calls=parallel).batch(BATCH, drop_remainder=True)
    stream = stream.prefetch(tf.data.AUTOTUNE if autotune else 2)
    options = tf.data.Options()
    options.autotune.enabled = autotune
    return stream.with_options(options)


def plain(splits: Splits, arrays: tuple, epochs: int, autotune: bool) -> list[float]:
    model, clock = ResNet(depth=8)(splits.spec), Clock()
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    stream = tutorial(splits, arrays, autotune)
    model.fit(
        stream, epochs=epochs, validation_data=splits.validation, callbacks=[clock], verbose=0
    )
    return clock.times


def ours(stage: Stage, splits: Splits) -> list[float]:
    model = ResNet(depth=8)(splits.spec)
    teachers = distill.loaded(stage.teachers, lambda _: ResNet(depth=8)(splits.spec))
    prepared = stage.prepare(model, stage.epochs * splits.steps_per_epoch, splits.samples)
    with tempfile.TemporaryDirectory() as folder:
        train(stage, prepared, teachers, splits, Place(workdir=Path(folder)))
    return stage.clock.times


def prepared(stage: Stage, splits: Splits) -> float:
    """Return the seconds that `stage` takes to rewrite a model without training."""
    model = ResNet(depth=8)(splits.spec)
    started = time.perf_counter()
    stage.prepare(model, 0, splits.samples)
    return time.perf_counter() - started


def contenders(splits: Splits, arrays: tuple, epochs: int) -> dict:
    stages = {
        "train": (Stage, {}),
        "prune": (Prune, {}),
        "shrink": (Shrink, {"macs": 0.5}),
        "quantize": (Quantize, {}),
        "cluster": (Cluster, {}),
        "train, average": (Stage, {"average": EMA()}),
        "train, live teacher": (Stage, {"teacher": Teacher()}),
        "train, cached teacher": (Stage, {"teacher": Teacher(cached=True)}),
        "train, features too": (
            Stage,
            {"teacher": Teachers(members=(Teacher(), Teacher(objective=Features())))},
        ),
    }
    runs = {
        "plain fit, tutorial": lambda: plain(splits, arrays, epochs, autotune=True),
        "plain fit, no stall": lambda: plain(splits, arrays, epochs, autotune=False),
    }
    for name, (kind, options) in stages.items():
        runs[name] = lambda kind=kind, options=options: ours(
            timed(kind)(epochs=epochs, clock=Clock(), steps_per_execution=16, **options), splits
        )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--examples", type=int, default=58 * BATCH)
    flags = parser.parse_args()
    images, labels = data(flags.examples)
    few = (images[:BATCH], labels[:BATCH])
    splits = from_arrays(
        train=(images, labels), validation=few, test=few, batch_size=BATCH,
        class_names=tuple("0123456789"),
    )  # fmt: skip
    runs = contenders(splits, (images, labels), flags.epochs)
    speeds = {name: [] for name in runs}
    rewriting = {stage.name: [] for stage in REWRITING}
    for _ in range(flags.rounds):
        for name, run in runs.items():
            keras.backend.clear_session()
            times = run()
            speeds[name].append(flags.examples * (flags.epochs - 1) / (times[-1] - times[1]))
            print(f"{name:22} {speeds[name][-1]:8,.0f} examples/s", flush=True)
        for stage in REWRITING:
            keras.backend.clear_session()
            seconds = prepared(stage, splits)
            rewriting[stage.name].append(seconds * speeds["train"][-1] / flags.examples)
            print(f"{stage.name:22} {seconds:8.1f} s", flush=True)
    print(report(speeds))
    print()
    rows = [[name, ranged(epochs)] for name, epochs in rewriting.items()]
    print(tabulate.tabulate(rows, ["without training", "epochs of train"], tablefmt="github"))


def report(speeds: dict[str, list[float]]) -> str:
    def ratio(name, base):
        return ranged([a / b for a, b in zip(speeds[name], speeds[base], strict=True)])

    bases = [name for name in speeds if name.startswith("plain")]
    rows = [[name, *(ratio(name, base) for base in bases)] for name in speeds]
    headers = ["median ratio (least-most)", *(f"to {base}" for base in bases)]
    return tabulate.tabulate(rows, headers, tablefmt="github")


def ranged(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
