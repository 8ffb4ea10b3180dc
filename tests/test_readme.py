"""The README's examples run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.described import description
from tfopt import export
from tfopt.compat import keras
from tfopt.config_file import load_config
from tfopt.data import Image, Normalisation
from tfopt.pipeline import run
from tfopt.testing import check_data, check_model, check_stage
from tfopt.tflite import metadata
from tfopt.tools.predict import predicted

ASK = "# ask.py"
README = Path(__file__).parent.parent / "README.md"


def block(first):
    """The Python that begins with these words."""
    found = re.search(rf"```python\n({re.escape(first)}.*?)```", README.read_text(), re.DOTALL)
    return found[1]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme") / "my_config.py"
    path.write_text(block("# my_config.py"))
    return load_config(str(path))


def test_the_example_keeps_the_contract(experiment):
    splits = check_data(experiment.data)
    check_model(experiment.model, spec=splits.spec)
    check_stage(experiment.stages[1])


def test_the_example_runs_to_proven_artifacts(experiment, tmp_path):
    rows = run(experiment, tmp_path)
    assert [row["variant"] for row in rows] == ["float32", "float16", "dynamic", "int8"] * 2
    assert all(row["accuracy"] > 0.8 for row in rows)


@pytest.mark.parametrize("variant", [export.Float32(), export.Int8()])
def test_a_client_of_thirty_lines_says_what_tfopt_predict_does(tmp_path, variant):
    client = block(ASK)
    assert len(client.splitlines()) < 30 and "tensorflow" not in client
    (tmp_path / "ask.py").write_text(client)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    normalisation = Normalisation(mean=(8.0,), std=(5.0,))
    examples = normalisation(np.float32(pixels[None, ..., None]) * 16 / 255)
    said = description(
        variant=variant.name,
        shape=(8, 8, 1),
        normalisation=normalisation,
        front_end=Image(peak=16),
    )
    path = tmp_path / "a.tflite"
    path.write_bytes(metadata.attached(variant.convert(model, examples), said))
    command = [sys.executable, "ask.py", path, "a.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (expected,) = predicted(path, [str(tmp_path / "a.png")], 3)
    assert done.stdout.splitlines() == [
        f"{guess['class']}: {guess['probability']:.1%}" for guess in expected["classes"]
    ]
