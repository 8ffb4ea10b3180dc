import time

import numpy as np
import pytest

from tests.stages.test_channels import randomised, silence
from tfopt.checkpoint import reloaded
from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.errors import ConfigError, RunError
from tfopt.evaluate import latency
from tfopt.export import Artifact, Float32
from tfopt.facts import Facts, kernel_variables, measure
from tfopt.models import ResNet, SmallCNN
from tfopt.spec import check_tree
from tfopt.stages import (
    EMA,
    L1,
    AtOnce,
    BatchNormScale,
    NofM,
    Prune,
    Shrink,
    Taylor,
    budget,
)
from tfopt.stages.channels import coupled
from tfopt.stages.shrink import without
from tfopt.testing import _made_up, check_stage

SPEC = Spec(shape=(8, 8, 1), class_names=("a", "b", "c", "d"), train_size=16)


@pytest.mark.parametrize("score", [L1(), BatchNormScale(), Taylor(batches=2)])
@pytest.mark.parametrize("what", ["params", "macs"])
def test_removes_just_the_channels_that_were_zero(score, what):
    keras.utils.set_random_seed(0)
    model = randomised(ResNet(depth=8)(SPEC))
    found = coupled(model, lambda layer: False)
    kinds = budget.kinds(found)
    cuts = budget.cuts(np.random.default_rng(0).random(found.count), kinds, 8)
    removed = budget.removed(cuts, kinds.sizes, cuts.made(8, kinds.sizes))
    silence(found, removed, "makes")
    asked = getattr(measure(without(model, found, removed)), what)
    small = Shrink(**{what: asked}, score=score).prepare(model, 1, _made_up(SPEC).samples)
    assert getattr(measure(small), what) == asked
    examples = np.random.default_rng(1).normal(size=(4, 8, 8, 1))
    np.testing.assert_allclose(small(examples), model(examples), atol=1e-5)


@pytest.mark.parametrize("what", ["params", "macs"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_delivers_a_plain_smaller_model_close_to_what_was_asked(what, share):
    model = ResNet(depth=20)(SPEC)
    before = getattr(measure(model), what)
    small = Shrink(**{what: share}).prepare(model, 1, None)
    assert share - 0.03 < getattr(measure(small), what) / before <= share
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    assert all(layer.filters % 8 == 0 for layer in small.layers if hasattr(layer, "filters"))
    again = reloaded(small)
    assert all(map(np.array_equal, again.get_weights(), small.get_weights()))
    assert getattr(measure(model), what) == before


@pytest.mark.parametrize("epochs", [0, 1])
def test_keeps_the_contract_and_the_zeros_of_a_sparse_model(epochs):
    sparse, rng = SmallCNN()(SPEC), np.random.default_rng(0)
    for kernel in kernel_variables(sparse).values():
        kernel.assign(kernel.numpy() * (rng.random(kernel.shape) > 0.7))
    stage = Shrink(params=0.4, epochs=epochs)
    small = stage.prepare(sparse, 1, None)
    trained = check_stage(stage, sparse, spec=SPEC)
    before, after = kernel_variables(small), kernel_variables(trained)
    assert 0.5 < measure(trained).sparsity < 0.8
    for name, kernel in before.items():
        assert np.array_equal(kernel.numpy() == 0, after[name].numpy() == 0), name
        assert np.array_equal(kernel.numpy(), after[name].numpy()) == (epochs == 0), name


def test_a_share_of_zeros_that_goes_with_its_channels_is_told(caplog):
    sparse = SmallCNN()(SPEC)
    kernel = sparse.get_layer("conv2").kernel
    kernel.assign(kernel.numpy() * (np.arange(kernel.shape[-1]) > kernel.shape[-1] // 2))
    stage = Shrink(params=0.4, epochs=0)
    stage.check(measure(sparse), measure(stage.prepare(sparse, 1, None)))
    assert "are zeros, of the whole model it were" in caplog.text


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Shrink(params=100), "expected at least 1,012 parameters, the smallest possible, and f"),
        (Shrink(macs=0.01), "14,112 .* fewer than the 346,624 of the model, received 3,466"),
        (Shrink(params=1e6), "fewer than the 52,516 of the model, received 1,000,000; ask"),
        (Shrink(params=0.5, exclude=("cnv*",)), "received 'cnv.*'; did you mean 'conv2'"),
        (Shrink(params=0.5, exclude=("*",)), "expected channels that can be removed, found none"),
        (Shrink(params=0.5, multiple=128), "found none in groups of 128"),
        (Shrink(params=0.1, score=BatchNormScale()), "the smallest possible"),
    ],
)
def test_what_is_impossible_is_refused_before_training(stage, message):
    with pytest.raises(ConfigError, match=message):
        stage.prepare(SmallCNN()(SPEC), 1, None)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Shrink(), "params: expected either this or macs to be given"),
        (Shrink(params=0.5, macs=9), r"either this or macs.* \(macs is 9\), received 0.5"),
        (Shrink(macs=1), "macs: expected a share below 1 or a whole number above 1, received 1"),
        (Shrink(params=-0.5), "params: expected a number of at least 0, received -0.5"),
        (Shrink(params=0.5, epochs=0, average=EMA()), "average: expected None for a stage of 0"),
        (Shrink(params=0.5, multiple=0), "multiple: expected a number of at least 1"),
        (
            Shrink(params=0.5, score="l1"),
            r"score: expected L1\(\) .* or an object with rate\(\), received 'l1'",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(stage, message):
    with pytest.raises(ConfigError, match=message):
        check_tree(stage, "config.stages[0]")


def test_check_raises_where_the_target_was_missed(caplog):
    def facts(params):
        return Facts(kernels=(), params=params, macs=0)

    stage = Shrink(params=0.5)
    caplog.set_level("INFO")
    for params in (125, 500):
        stage.check(facts(1000), facts(params))
        assert (
            caplog.messages[-1]
            == f"stage shrink: {params} of 1,000 parameters are left, {params / 10:.0f}%."
        )
    for params in (124, 501):
        with pytest.raises(RunError, match=f"between 125 and 500 .*, measured {params}"):
            stage.check(facts(1000), facts(params))


@pytest.mark.slow
def test_latency_falls_with_the_operations():
    spec = Spec(shape=(32, 32, 3), class_names=("a", "b", "c", "d"), train_size=16)
    model = ResNet(depth=20, width=32)(spec)
    small = Shrink(macs=0.4).prepare(model, 1, None)
    medians = []
    for each in (model, small):
        example = np.zeros((1, 32, 32, 3), np.float32)
        content = Float32().convert(each, example)
        artifact = Artifact(stage="shrink", variant="float32", content=content)
        medians.append(latency(artifact, example)[0])
    assert medians[1] < 0.7 * medians[0], medians


@pytest.mark.slow
def test_resnet50_is_shrunk_within_half_a_minute():
    model = keras.applications.ResNet50(weights=None)
    began = time.perf_counter()
    small = Shrink(macs=0.5).prepare(model, 1, None)
    assert time.perf_counter() - began < 30
    assert 0.49 < measure(small).macs / measure(model).macs <= 0.5


def test_zeros_in_a_pattern_are_not_shrunk_apart():
    stage = Prune(pattern=NofM(), growth=AtOnce())
    model = SmallCNN(filters=(16, 32), units=16)(
        Spec(shape=(8, 8, 1), class_names=("a", "b"), train_size=8)
    )
    pruned = stage.rehearsed(stage.prepare(model, 10, None))
    with pytest.raises(
        ConfigError, match=r"expected a model without N:M zeros.*with 2 of 4, which"
    ):
        Shrink(params=0.6).prepare(pruned, 10, None)
