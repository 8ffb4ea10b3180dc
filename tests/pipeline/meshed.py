"""Run stages on one device, and over 4 as a mesh of each shape; print what came out as JSON.

A process of its own, since a process can split its CPU only once.
"""

import contextlib
import json
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tfopt.checkpoint import load_model
from tfopt.compat import keras, tf
from tfopt.config import Experiment, Mesh
from tfopt.data import Normalisation, from_arrays
from tfopt.export import Float32
from tfopt.facts import kernel_variables
from tfopt.pipeline import run
from tfopt.spec import spec
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
from tfopt.strategy import logical_cpus


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


def experiment(stages, sides=None):
    hints = Teacher(objective=Features(pairs=(("dense", "flatten"),)), weight=0.1)
    teachers = Teachers(members=(Teacher(), Teacher(cached=True), hints))
    gentle = {"learning_rate": 0.01, "optimizer": SGD()}
    every = [
        Stage(epochs=2, learning_rate=0.01, optimizer=Adam(), schedule=Cosine()),
        Prune(epochs=2, sparsity=0.5, growth=AtOnce(), teacher=teachers, **gentle),
    ]
    return Experiment(
        name="meshed",
        data=Tokens(),
        model=every_kind_of_layer,
        batch_size=40,
        strategy="mesh" if sides else "cpu",
        mesh=sides or Mesh(),
        min_agreement=0.0,
        variants=[Float32()],
        stages=every[:stages],
    )


def stopped_and_gone_on_with_another(folder):
    """Return what 2 x 2 devices found, and 4 x 1 from the last epoch of pruning on."""
    hybrid, another = (experiment(2, sides) for sides in (Mesh(batch=2, model=2), Mesh(batch=4)))
    stop_once("prune", 0)
    with contextlib.suppress(KeyboardInterrupt):
        run(hybrid, folder)
    first = dict(shares)
    return {"stages": results(another, folder), "shares": first}


def on(sides, folder):
    return {"stages": results(experiment(1, sides), folder), "shares": dict(shares)}


def without_a_rule(folder):
    asked = experiment(1, Mesh(batch=4))
    asked.model = with_an_operator_that_has_no_rule
    run(asked, folder)


logical_cpus(4)
said, shares = [], {}
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
handler.addFilter(lambda record: "mesh" in record.getMessage())
logging.getLogger("tfopt").addHandler(handler)
Spread.placed = seen(Spread.placed, shares)
with tempfile.TemporaryDirectory() as temporary:
    at = Path(temporary)
    found = {
        "one": results(experiment(2), at / "one"),
        "hybrid": stopped_and_gone_on_with_another(at / "hybrid"),
        "data": on(Mesh(batch=4), at / "data"),
        "model": on(Mesh(model=4), at / "model"),
        "said": list(said),
    }
    without_a_rule(at / "without_a_rule")
print("RESULT " + json.dumps({**found, "without_a_rule": said}))
