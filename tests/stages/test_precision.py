"""Stages that compute in bfloat16 deliver float32 models, and what was asked of them."""

import numpy as np
import pytest

from tfopt.compat import keras, tf
from tfopt.config import Experiment
from tfopt.data import Digits
from tfopt.graph import rebuilt
from tfopt.models import SmallCNN
from tfopt.stages import EMA, SGD, Cluster, Features, Prune, Quantize, Shrink, Stage, Teacher
from tfopt.stages import ready as compiling
from tfopt.stages.carry_out import carry_out
from tfopt.stages.precision import in_full, in_mixed, is_mixed
from tfopt.stages.train import Place

OPTIONS = {"epochs": 1, "learning_rate": 0.02, "optimizer": SGD()}


@pytest.fixture(scope="module")
def digits():
    return Digits().load(64)


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    return SmallCNN(filters=(8, 8), units=16)(digits.spec)


def test_all_but_the_logits_compute_in_bfloat16(model, digits):
    mixed = in_mixed(model)
    examples = next(iter(digits.test))[0]
    policies = {layer.name: layer.compute_dtype for layer in mixed.layers[1:]}
    assert policies.pop("logits") == "float32" and set(policies.values()) == {"bfloat16"}
    assert mixed.output.dtype == "float32"
    assert {weight.dtype.name for weight in mixed.weights} == {"float32"}
    expected, found = model(examples).numpy(), mixed(examples).numpy()
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    np.testing.assert_array_equal(in_full(mixed)(examples), expected)


@pytest.mark.parametrize(
    "stage",
    [
        Stage(**OPTIONS),
        Stage(average=EMA(), **OPTIONS),
        Stage(teacher=Teacher(), **OPTIONS),
        Stage(teacher=Teacher(objective=Features(pairs=(("dense1", "dense1"),))), **OPTIONS),
        Prune(sparsity=0.5, **OPTIONS),
        Shrink(params=0.7, multiple=1, **OPTIONS),
        Cluster(clusters=8, **OPTIONS),
        Quantize(**OPTIONS),
    ],
    ids=lambda stage: f"{stage.name}-{stage.teacher and type(stage.teacher.objective).__name__}",
)
def test_a_stage_delivers_in_float32(stage, model, digits, tmp_path, monkeypatch):
    seen = []
    compile_model = compiling.compile_model

    def watched(stage, fitted, *args):
        seen.extend(layer.compute_dtype for layer in fitted.submodules if layer.name == "conv1")
        compile_model(stage, fitted, *args)

    monkeypatch.setattr(compiling, "compile_model", watched)
    place = Place(workdir=tmp_path, mixed=True, trained=True)
    teachers = [rebuilt(model) for _ in stage.teachers]
    delivered = carry_out(stage, rebuilt(model), teachers, digits, place)
    assert not is_mixed(delivered.model)
    assert not np.array_equal(delivered.model.get_weights()[0], model.get_weights()[0])
    assert delivered.history[0]["loss"] < 30
    assert len(seen) >= 1 + len(stage.teachers)
    assert set(seen) == {"float32" if stage.quantizes else "bfloat16"}


def test_zeros_stay_zero(model, digits, tmp_path):
    pruned = rebuilt(model)
    kernel = pruned.get_layer("dense1").kernel
    kernel.assign(tf.where(tf.abs(kernel) < tf.reduce_max(tf.abs(kernel)) / 2, 0.0, kernel))
    zeros = kernel.numpy() == 0
    assert 0.3 < zeros.mean() < 1
    place = Place(workdir=tmp_path, mixed=True, trained=True)
    delivered = carry_out(Stage(**OPTIONS), pruned, [], digits, place)
    assert not delivered.model.get_layer("dense1").kernel.numpy()[zeros].any()


def test_auto_is_mixed_on_a_tpu_alone():
    experiment = Experiment(name="one", data=Digits(), model=SmallCNN(), stages=[Stage()])
    found = {}
    for experiment.precision in ("auto", "float32", "mixed_bfloat16"):
        found[experiment.precision] = [experiment.is_mixed(on_tpu=on) for on in (False, True)]
    assert list(found.values()) == [[False, True], [False, False], [True, True]]
