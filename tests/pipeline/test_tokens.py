"""Text as rows of an Embedding's table, from whole numbers to an int8 file."""

from dataclasses import replace

import numpy as np
import pytest

from tfopt import pipeline
from tfopt.compat import keras
from tfopt.config import Experiment
from tfopt.data import Normalisation, from_arrays
from tfopt.errors import ConfigError
from tfopt.spec import spec
from tfopt.stages import Adam, Prune, Quantize, Stage


@spec
class Sequences:
    """Sequences of 6 tokens; the class says which of three tokens is there more often."""

    normalisation: Normalisation | None = Normalisation()
    class_names: tuple[str, ...] = ("a", "b", "c")

    def load(self, batch_size):
        tokens = np.random.default_rng(0).integers(0, 30, (600, 6), np.int32)
        labels = np.stack([tokens % 3 == n for n in range(3)]).sum(-1).argmax(0)
        return from_arrays(
            train=(tokens[:450], labels[:450]),
            test=(tokens[450:], labels[450:]),
            class_names=self.class_names,
            batch_size=batch_size,
            normalisation=self.normalisation,
        )


def bag_of_words(data):
    inputs = keras.Input(data.shape, name="tokens")
    x = keras.layers.Embedding(30, 8, name="embedding")(inputs)
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    x = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(data.classes, name="logits")(x))


EXPERIMENT = Experiment(
    name="tokens",
    data=Sequences(),
    model=bag_of_words,
    batch_size=50,
    stages=[
        Stage(epochs=8, learning_rate=0.02, optimizer=Adam()),
        Prune(epochs=4, sparsity=0.5, learning_rate=0.01),
        Quantize(epochs=2, learning_rate=1e-3),
    ],
)


def test_tokens_are_looked_up_as_they_are_in_every_artifact(tmp_path):
    rows = pipeline.run(EXPERIMENT, tmp_path)
    (quantized,) = [row for row in rows if row["stage"] == "quantize"]
    assert quantized["accuracy"] > 0.7
    assert quantized["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert quantized["agreement"] > 0.95


def test_tokens_that_were_normalised_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="numbers as they are.*received normalised ones; give"):
        pipeline.run(replace(EXPERIMENT, data=Sequences(normalisation=None)), tmp_path)


def test_tokens_that_the_table_lacks_are_refused(tmp_path):
    def smaller(data):
        inputs = keras.Input(data.shape, name="tokens")
        x = keras.layers.Flatten()(keras.layers.Embedding(29, 4)(inputs))
        return keras.Model(inputs, keras.layers.Dense(data.classes)(x))

    with pytest.raises(ConfigError, match="from 0 to 28, the rows of .*, received 0 to 29; give"):
        pipeline.run(replace(EXPERIMENT, model=smaller), tmp_path)


def test_class_names_that_no_file_can_hold_are_refused_before_training(tmp_path):
    data = Sequences(class_names=("a", "b\udcff", "c"))
    with pytest.raises(ConfigError, match="config.data: expected class names, .* surrogates not"):
        pipeline.run(replace(EXPERIMENT, data=data), tmp_path)
    assert not (tmp_path / "train").exists()
