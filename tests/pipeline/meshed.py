"""Run stages over a mesh of argv[1] x argv[2] devices, or on one for 0 0.

Prints what came out as JSON. A process of its own, since a process can split its CPU only once.
"""

import json
import logging
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tfopt.checkpoint import load_model
from tfopt.compat import keras, tf
from tfopt.config import Experiment, Mesh, spec
from tfopt.data import Normalisation, from_arrays
from tfopt.export import Float32
from tfopt.facts import kernel_variables
from tfopt.pipeline import run
from tfopt.stages import (
    SGD,
    Adam,
    AtOnce,
    Cosine,
    Features,
    Prune,
    Stage,
    Teacher,
    Teachers,
)
from tfopt.stages.callbacks import SaveEpoch
from tfopt.stages.spread import Spread


@spec
class Tokens:
    """The pixels of digits as 64 tokens, of 17 kinds."""

    def load(self, batch_size):
        digits = load_digits()
        tokens = digits.data.astype(np.int32)
        return from_arrays(
            train=(tokens[:800], digits.target[:800]),
            test=(tokens[800:1000], digits.target[800:1000]),
            class_names=tuple("0123456789"),
            batch_size=batch_size,
            normalisation=Normalisation(),
        )


def every_kind_of_layer(data):
    inputs = keras.Input(data.shape, name="tokens")
    x = keras.layers.Embedding(17, 8, name="embedding")(inputs)
    x = keras.layers.Reshape((8, 8, 8), name="image")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    bn = keras.layers.BatchNormalization(name="bn")
    bn.fused = False  # as on a mesh
    x = keras.layers.ReLU(name="relu")(bn(x))
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Reshape((16, 8), name="rows")(x)
    x = keras.layers.MultiHeadAttention(4, 4, name="attention")(x, x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(32, activation="relu", name="dense")(x)
    return keras.Model(inputs, keras.layers.Dense(data.classes, name="logits")(x))


def with_an_operator_that_has_no_rule(data):
    inputs = keras.Input(data.shape, name="tokens")
    x = keras.layers.Reshape((8, 8, 1), name="image")(inputs)
    x = keras.layers.AveragePooling2D(name="pool")(keras.layers.Conv2D(4, 3, name="conv")(x))
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(data.classes, name="logits")(x))


def seen(placed, shares):
    """Let `shares` be how much of every kernel each device has."""

    def placed_and_seen(self, model, teachers):
        student, there = placed(self, model, teachers)
        for name, kernel in kernel_variables(student).items():
            parts = tf.experimental.dtensor.unpack(kernel.read_value())
            shares[name] = [math.prod(part.shape) / math.prod(kernel.shape) for part in parts]
        return student, there

    return placed_and_seen


def stop_once(stage, epoch):
    """Let the run end after `epoch` of the stage number `stage` was saved."""
    save = SaveEpoch.on_epoch_end

    def save_and_stop(self, number, logs=None):
        save(self, number, logs)
        if stage in str(self._checkpoints._folder) and number == epoch:
            SaveEpoch.on_epoch_end = save
            raise KeyboardInterrupt

    SaveEpoch.on_epoch_end = save_and_stop


def results(experiment, folder):
    run(experiment, folder)
    found = {}
    for stage in experiment.stages:
        facts = json.loads((folder / stage.name / "stage.json").read_text())
        model = load_model(folder / stage.name / "model.h5")
        found[stage.name] = {
            "history": facts["history"],
            "mesh": facts["mesh"],
            "kernels": {k: v.numpy().tolist() for k, v in kernel_variables(model).items()},
        }
    return found


batch, model = map(int, sys.argv[1:])
said, shares = [], {}
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
handler.addFilter(lambda record: "mesh" in record.getMessage())
logging.getLogger("tfopt").addHandler(handler)
Spread.placed = seen(Spread.placed, shares)
hints = Teacher(objective=Features(pairs=(("dense", "flatten"),)), weight=0.1)
teachers = Teachers(members=(Teacher(), Teacher(cached=True), hints))
gentle = {"learning_rate": 0.01, "optimizer": SGD()}
experiment = Experiment(
    name="meshed",
    data=Tokens(),
    model=every_kind_of_layer,
    batch_size=40,
    strategy="mesh" if batch else "cpu",
    mesh=Mesh(batch=max(batch, 1), model=max(model, 1)),
    min_agreement=0.0,
    variants=[Float32()],
    stages=[
        Stage(learning_rate=0.01, optimizer=Adam(), schedule=Cosine()),
        Prune(epochs=2, sparsity=0.5, growth=AtOnce(), teacher=teachers, **gentle),
    ],
)
is_hybrid = (batch, model) == (2, 2)
if batch and not is_hybrid:
    experiment.stages = experiment.stages[:1]
with tempfile.TemporaryDirectory() as temporary:
    folder, seen_first = Path(temporary), {}
    if is_hybrid:
        # Stopped after an epoch of pruning, it goes on with another mesh.
        stop_once("prune", 0)
        try:
            run(experiment, folder / "whole")
        except KeyboardInterrupt:
            experiment.mesh, seen_first = Mesh(batch=4), dict(shares)
    found = {"stages": results(experiment, folder / "whole"), "shares": seen_first or dict(shares)}
    if (batch, model) == (4, 1):
        experiment.model = with_an_operator_that_has_no_rule
        run(experiment, folder / "without_a_rule")
print("RESULT " + json.dumps({**found, "said": said}))
