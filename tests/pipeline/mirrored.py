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
from tfopt.compat import keras, litert, tf
from tfopt.config_file import load_config
from tfopt.data import from_arrays
from tfopt.export import Int8
from tfopt.facts import kernel_variables
from tfopt.pipeline import run
from tfopt.stages import (
    EMA,
    SGD,
    SWA,
    Bits,
    Block,
    Cluster,
    CorrectBias,
    Equalize,
    Features,
    NofM,
    OneShotPrune,
    Prune,
    Sensitivity,
    Shrink,
    Stage,
    Taylor,
    Teacher,
    Teachers,
)
from tfopt.stages import ready as compiling


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


def exported(path):
    """Return the scale of every tensor of the .tflite that has one for all its values."""
    interpreter = litert.Interpreter(model_path=str(path))
    scales = {x["name"]: x["quantization_parameters"] for x in interpreter.get_tensor_details()}
    return {name: float(x["scales"][0]) for name, x in scales.items() if len(x["scales"]) == 1}


def results(experiment, stages):
    experiment.stages, found = stages, {}
    with tempfile.TemporaryDirectory() as folder:
        run(experiment, Path(folder))
        for stage in stages:
            model = load_model(Path(folder) / stage.name / "model.h5")
            ranges = {w.name: float(w) for w in model.weights if "/range_" in w.name}
            facts = json.loads((Path(folder) / stage.name / "stage.json").read_text())
            found[stage.name] = {
                "kernels": {k: v.numpy().tolist() for k, v in kernel_variables(model).items()},
                "ranges": ranges,
                "exported": exported(Path(folder) / f"artifacts/{stage.name}_int8.tflite"),
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
gentle = {"learning_rate": 0.02, "optimizer": SGD()}
trained, prune, quantize = experiment.stages
prune.allocation = Sensitivity(batches=2)
quantize.layers = (Bits(layers=("dense1",), weights=4),)
# In one run, since the collectives of a second get the keys of the first's: its shapes must be
# the same, as those of `trained` are in the run after this one.
every_kind = [
    trained,
    Stage(name="distill", teacher=Teachers(members=members), average=SWA(), **gentle),
    Shrink(params=0.6, multiple=2, score=Taylor(batches=2), **gentle),
    Prune(name="blocks", sparsity=0.2, pattern=Block(), **gentle),
    OneShotPrune(sparsity=0.4, batches=2, **gentle),
    Prune(name="two_of_four", pattern=NofM(), **gentle),
    prune,
    Cluster(clusters=8, average=EMA(), **gentle),
    quantize,
]
for stage in every_kind:
    stage.epochs, stage.steps_per_execution = 1, 16
experiment.data, experiment.min_agreement = NoisyDigits(), 0.0
experiment.variants = [Int8()]  # what is compared are models: a file of each will do
as_it_is = compiling.synchronise_statistics
if replicas == 1:
    compiling.synchronise_statistics = without_fused_kernel
found = {"same_kernels": results(experiment, every_kind)}
compiling.synchronise_statistics = as_it_is
found["as_it_is"] = results(experiment, [trained, Equalize(), CorrectBias()])
found["devices"] = len(tf.config.list_logical_devices("CPU"))
print("RESULT " + json.dumps(found))
