import numpy as np
import pytest

from tfopt.config import RunError
from tfopt.facts import Facts, Kernel, is_quantized, measure
from tfopt.stages import AtOnce, Prune, Quantize
from tfopt.testing import check_stage


def test_zeros_survive_because_they_were_measured():
    sparse = check_stage(Prune(sparsity=0.75, growth=AtOnce()))
    before = measure(sparse)
    quantized = check_stage(Quantize(epochs=4), sparse)
    assert is_quantized(quantized)
    assert not is_quantized(sparse)
    after = {kernel.layer: kernel.zeros for kernel in measure(quantized).kernels}
    assert after == {kernel.layer: kernel.zeros for kernel in before.kernels}


def facts(zeros):
    kernel = Kernel(layer="conv", layer_type="Conv2D", shape=(10, 10), zeros=zeros)
    return Facts(kernels=(kernel,), params=100, macs=0)


def test_check_raises_where_zeros_were_lost():
    Quantize().check(facts(80), facts(80))
    Quantize().check(facts(1), facts(0))  # chance, and no sparsity
    with pytest.raises(RunError, match="the 80 zeros of layer 'conv' to stay, measured 79"):
        Quantize().check(facts(80), facts(79))


def test_a_dense_model_is_trained_freely():
    quantized = check_stage(Quantize())
    assert all(kernel.zeros == 0 for kernel in measure(quantized).kernels)
    assert np.all([kernel.size for kernel in measure(quantized).kernels])
