"""What is deployed without tfopt: SavedModel, Keras file and C array, from one run."""

import ctypes
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.pipeline.tiny import get_config
from tfopt import budget, pipeline, proof
from tfopt.checkpoint import load_model
from tfopt.compat import keras
from tfopt.errors import RunError
from tfopt.export import Artifact, saved
from tfopt.limits import Budget
from tfopt.runner import Runner

STAGES = ("train", "prune", "quantize")
# A process that has no tfopt, which asks each of the models that it is given.
ALONE = """
import sys

class NoTfopt:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tfopt":
            raise ModuleNotFoundError(f"no {name}")

sys.meta_path.insert(0, NoTfopt())
import numpy as np
import tensorflow as tf
import tf_keras

folder, examples, answers = sys.argv[1:4]
inputs, found = np.load(examples), {}
for name in sys.argv[4:]:
    loaded = tf.saved_model.load(f"{folder}/{name}_saved_model").signatures["serving_default"]
    found[f"{name}_saved_model"] = loaded(examples=tf.constant(inputs))["logits"]
    found[f"{name}_keras"] = tf_keras.models.load_model(f"{folder}/{name}.keras")(inputs)
np.savez(answers, **found)
assert "tfopt" not in sys.modules
"""


@pytest.fixture(scope="module")
def examples():
    test = get_config().data.load(64).test
    return np.concatenate([x.numpy() for x, *_ in test])[:100]


@pytest.fixture(scope="module")
def alone(tiny_run, examples, tmp_path_factory):
    """What the saved models of all stages answer without tfopt."""
    folder = tmp_path_factory.mktemp("alone")
    np.save(folder / "examples.npy", examples)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tiny_run[1] / "artifacts", folder / "examples.npy",
         folder / "answers.npz", *STAGES],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(folder / "answers.npz")


def lite(content, examples):
    return Runner(Artifact(stage="s", variant="v", content=content), threads=1)(examples)


@pytest.mark.parametrize("stage", STAGES)
def test_saved_models_answer_without_tfopt_as_the_model_does(tiny_run, examples, alone, stage):
    model = load_model(tiny_run[1] / stage / "model.h5")
    expected = model(examples, training=False).numpy()
    np.testing.assert_allclose(alone[f"{stage}_saved_model"], expected, atol=1e-4)
    if stage != "quantize":
        np.testing.assert_allclose(alone[f"{stage}_keras"], expected, atol=1e-4)
        content = (tiny_run[1] / "artifacts" / f"{stage}_float32.tflite").read_bytes()
        np.testing.assert_allclose(
            alone[f"{stage}_saved_model"], lite(content, examples), atol=1e-4
        )


def test_what_was_trained_for_int8_is_near_the_int8_file(tiny_run, examples, alone):
    content = (tiny_run[1] / "artifacts" / "quantize_int8.tflite").read_bytes()
    expected = lite(content, examples)
    off = {
        kind: np.linalg.norm(alone[f"quantize_{kind}"] - expected) / np.linalg.norm(expected)
        for kind in ("saved_model", "keras")
    }
    # The SavedModel rounds as the file does; the Keras file is the same without the roundings.
    assert off["saved_model"] < 0.01 and off["keras"] < 0.05
    for kind in off:
        assert np.mean(alone[f"quantize_{kind}"].argmax(-1) == expected.argmax(-1)) >= 0.99


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_c_array_of_the_run_is_its_file_to_the_bit(tiny_run, tmp_path):
    artifacts = tiny_run[1] / "artifacts"
    library = tmp_path / "model.so"
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", artifacts / "quantize_int8.c"]
    subprocess.run([*command, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    size = ctypes.c_uint.in_dll(loaded, "quantize_int8_len").value
    compiled = bytes((ctypes.c_ubyte * size).in_dll(loaded, "quantize_int8"))
    assert compiled == (artifacts / "quantize_int8.tflite").read_bytes()
    assert [path.name for path in sorted(artifacts.glob("*.[ch]"))] == [
        "quantize_int8.c",
        "quantize_int8.h",
    ]
    assert "within the budget; as C array in" in tiny_run[2]


def test_a_budget_that_is_missed_ends_a_finished_run_with_a_report(
    tiny_run, experiment, tmp_path, monkeypatch
):
    workdir = shutil.copytree(tiny_run[1], tmp_path / "run")
    monkeypatch.setattr(pipeline, "carry_out", None)
    row = tiny_run[0][-1]
    experiment.budget = Budget(flash=row["bytes"] - 10, arena=row["arena_bytes"] - 1)
    message = (
        r"within [\d,]+ bytes of flash and [\d,]+ bytes of arena, received none; quantize_int8 is "
        r"the nearest: flash: 10 bytes .* the largest kernel is that of 'conv2'\. arena: 1 bytes "
        r".*; most are alive at 'MAX_POOL_2D pool1', shrink"
    )
    with pytest.raises(RunError, match=message):
        pipeline.run(experiment, workdir)
    report = (workdir / "report.md").read_text()
    assert "**Failed**: config.budget: expected an artifact of the last stage" in report
    assert f"| quantize_int8 | {row['bytes']:,} | {row['arena_bytes']:,} |" in report
    assert not list((workdir / "artifacts").glob("*.[ch]"))
    experiment.budget = Budget(flash=row["bytes"])
    assert pipeline.run(experiment, workdir) == tiny_run[0]
    assert (workdir / "artifacts" / "quantize_int8.c").exists()


def test_of_several_that_fit_the_best_is_written_and_of_none_the_nearest_told(tiny_run, tmp_path):
    rows, workdir, _ = tiny_run
    artifacts = shutil.copytree(workdir / "artifacts", tmp_path / "artifacts")
    named = {f"{row['stage']}_{row['variant']}": row for row in rows}
    pruned = [row | {"accuracy": 0.5} for name, row in named.items() if name.startswith("prune")]
    budget.check(Budget(flash=2**20), pruned, artifacts)
    assert (artifacts / "prune_int8.c").exists(), "of those that are as accurate, the smallest"
    pruned[0]["accuracy"] = 0.6
    budget.check(Budget(flash=2**20), pruned, artifacts)
    assert (artifacts / "prune_float32.c").exists() and not (artifacts / "prune_int8.c").exists()
    message = (
        r"prune_float16 is the nearest: .* refuses it \(DEQUANTIZE .* no float16 here\); add Int8"
    )
    with pytest.raises(RunError, match=message):
        budget.check(Budget(flash=2**20), [named["prune_float16"]], artifacts)


def test_a_run_that_was_finished_without_them_gets_them(
    tiny_run, experiment, tmp_path, monkeypatch
):
    workdir = shutil.copytree(tiny_run[1], tmp_path / "run")
    monkeypatch.setattr(pipeline, "carry_out", None)
    monkeypatch.setattr(proof.evaluate, "measure", None)
    for stage in STAGES:
        saved.discard(workdir / "artifacts", stage)
    assert not list((workdir / "artifacts").glob("*saved_model"))
    assert pipeline.run(experiment, workdir) == tiny_run[0]
    for stage in STAGES:
        assert saved.is_written(workdir / "artifacts", stage)
        assert (workdir / "artifacts" / f"{stage}.keras").exists()


@keras.saving.register_keras_serializable(package="mine")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: Doubled(), "Doubled"),
        (lambda: keras.layers.Lambda(lambda x: x), "Lambda"),
        (lambda: keras.layers.Activation(lambda x: x), "lambda"),
    ],
)
def test_layers_that_only_their_author_knows_have_no_keras_file(tmp_path, caplog, layer, named):
    caplog.set_level("INFO")
    inputs = keras.Input((4,), name="input")
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(layer()(inputs)))
    saved.write(model, tmp_path, "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net_saved_model"]
    assert f"net: has no Keras file, as Keras doesn't know its '{named}" in caplog.text
