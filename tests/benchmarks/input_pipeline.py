"""Examples per second of the data alone against the training step, as ratios of one run.

    python tests/benchmarks/input_pipeline.py [--rounds=3] [--batches=60]

The data are cached uint8 images as of CIFAR-10, as they are and augmented, in memory and on disk
(np.memmap); the step is that of a ResNet-8 in float32 on one batch that stays where it is. A
ratio is always taken within a round. What a run itself waits is in its report.
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

from tfopt.compat import tf
from tfopt.data import Augment, Splits, from_arrays
from tfopt.models import ResNet
from tfopt.stages import Stage
from tfopt.stages.ready import ready

BATCH, EXAMPLES = 128, 12_800


def splits(images: np.ndarray, augment: Augment | None) -> Splits:
    labels = (np.arange(EXAMPLES) % 10).astype(np.int32)
    few = (images[:BATCH], labels[:BATCH])
    return from_arrays(
        train=(images, labels), validation=few, test=few, batch_size=BATCH, augment=augment,
        class_names=tuple("0123456789"),
    )  # fmt: skip


def data_alone(found: Splits, batches: int) -> float:
    """Return examples per second of the stream, after its buffers were filled."""
    stream = iter(found.train(0))
    next(stream)
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * BATCH / (time.perf_counter() - began)


def step_alone(found: Splits, batches: int) -> float:
    """Return examples per second of `fit`'s step on one batch, after it was traced."""
    model = ready(
        Stage(steps_per_execution=16), ResNet(depth=8)(found.spec), [], found, trained=False
    )
    batch = tf.data.Dataset.from_tensors(next(iter(found.train(0)))).repeat()
    model.fit(batch, steps_per_epoch=batches, verbose=0)  # which traces
    began = time.perf_counter()
    model.fit(batch, steps_per_epoch=batches, verbose=0)
    return batches * BATCH / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=60)
    flags = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        sources = {
            "in memory": splits(images, None),
            "in memory, augmented": splits(images, Augment()),
            "on disk": splits(np.load(path, mmap_mode="r"), None),
            "on disk, augmented": splits(np.load(path, mmap_mode="r"), Augment()),
        }
        ratios, speeds = {name: [] for name in sources}, {name: [] for name in sources}
        for _ in range(flags.rounds):
            step = step_alone(sources["in memory"], flags.batches)
            print(f"{'step':22} {step:10,.0f} examples/s", flush=True)
            for name, source in sources.items():
                speeds[name].append(data_alone(source, 5 * flags.batches))
                ratios[name].append(speeds[name][-1] / step)
                print(f"{name:22} {speeds[name][-1]:10,.0f} examples/s", flush=True)
    rows = [
        [name, f"{statistics.median(speeds[name]):,.0f}", f"{statistics.median(found):.0f}"
         f" ({min(found):.0f}-{max(found):.0f})"]
        for name, found in ratios.items()
    ]  # fmt: skip
    print(tabulate.tabulate(rows, ["data", "examples/s", "times the step"], tablefmt="github"))


if __name__ == "__main__":
    main()
