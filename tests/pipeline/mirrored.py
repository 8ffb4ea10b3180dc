"""Run a stage of each kind over argv[1] replicas; print what came out as JSON.

A process of its own, since a process can have only one strategy.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tfopt.checkpoint import load_model
from tfopt.compat import keras, tf
from tfopt.config_file import load_config
from tfopt.data import from_arrays
from tfopt.facts import kernel_variables
from tfopt.pipeline import run
from tfopt.stages import (
    EMA,
    SGD,
    Cluster,
    CorrectBias,
    Equalize,
    Features,
    OneShotPrune,
    Sensitivity,
    Shrink,
    Stage,
    Taylor,
    Teacher,
    Teachers,
)
from tfopt.stages import train as training


class NoisyDigits:
    """Digits of which no two batches have the same range."""

    def load(self, batch_size):
        digits = load_digits()
        rng = np.random.default_rng(0)
        images = (digits.images + rng.normal(size=digits.images.shape))[..., None]
        images = images.astype(np.float32)
        return from_arrays(
            train=(images[:1400], digits.target[:1400]),
            test=(images[1400:], digits.target[1400:]),
            class_names=tuple("0123456789"),
            batch_size=batch_size,
        )


def results(experiment):
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run(experiment, Path(folder))
        for stage in experiment.stages:
            model = load_model(Path(folder) / stage.name / "model.h5")
            ranges = {w.name: float(w) for w in model.weights if "/range_" in w.name}
            facts = json.loads((Path(folder) / stage.name / "stage.json").read_text())
            found[stage.name] = {
                "kernels": {k: v.numpy().tolist() for k, v in kernel_variables(model).items()},
                "ranges": ranges,
                "history": facts["history"],
            }
    return found


def without_fused_kernel(model):
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.fused = False


replicas = int(sys.argv[1])
experiment = load_config(str(Path(__file__).parent / "tiny.py"))
experiment.strategy, experiment.replicas, experiment.deterministic = "mirrored", replicas, True
hints = Features(pairs=(("dense1", "flatten"),))
members = Teacher(weight=0.5, cached=True), Teacher(weight=0.5), Teacher(objective=hints)
distill = Stage(
    name="distill", learning_rate=0.02, optimizer=SGD(), teacher=Teachers(members=members)
)
one_shot = OneShotPrune(sparsity=0.4, batches=2, learning_rate=0.02, optimizer=SGD())
shrink = Shrink(
    params=0.6, multiple=2, score=Taylor(batches=2), learning_rate=0.02, optimizer=SGD()
)
experiment.stages[1:1] = [distill, shrink, one_shot]
experiment.stages[4].allocation = Sensitivity(batches=2)
cluster = Cluster(clusters=8, learning_rate=0.02, optimizer=SGD(), average=EMA())
experiment.stages.insert(-1, cluster)
for stage in experiment.stages:
    stage.epochs = 1
experiment.data, experiment.min_agreement = NoisyDigits(), 0.0
as_it_is = training._synchronise_statistics
if replicas == 1:
    training._synchronise_statistics = without_fused_kernel
found = {"same_kernels": results(experiment)}
training._synchronise_statistics = as_it_is
experiment.stages = [experiment.stages[0], Equalize(), CorrectBias()]
found["as_it_is"] = results(experiment)
found["devices"] = len(tf.config.list_logical_devices("CPU"))
print("RESULT " + json.dumps(found))
