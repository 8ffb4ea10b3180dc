"""ResNet-20 on random images at global batch 256, for scaling.py; no experiment of its own."""

import numpy as np

from tfopt.compat import keras
from tfopt.config import Experiment
from tfopt.data import from_arrays
from tfopt.export import Float32
from tfopt.models import ResNet
from tfopt.stages import Stage

BATCH, STEPS = 256, 12


class RandomImages:
    """Images as of CIFAR-10."""

    def load(self, batch_size):
        rng, count = np.random.default_rng(0), BATCH * STEPS
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels = (np.arange(count) % 10).astype(np.int32)
        few = images[:BATCH], labels[:BATCH]
        return from_arrays(
            train=(images, labels), validation=few, test=few, batch_size=batch_size,
            class_names=tuple("0123456789"),
        )  # fmt: skip


def unfused(spec):
    """The same with the BatchNormalization that several replicas take."""
    model = ResNet(depth=20)(spec)
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.fused = False
    return model


def get_config():
    return Experiment(
        name="scaling",
        data=RandomImages(),
        model=ResNet(depth=20),
        batch_size=BATCH,
        min_agreement=0.0,
        stages=[Stage(steps_per_execution=16, epochs=4)],
        variants=[Float32()],
    )
