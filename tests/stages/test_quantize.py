import numpy as np

from tfopt.facts import is_quantized, measure
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


def test_a_dense_model_is_trained_freely():
    quantized = check_stage(Quantize())
    assert all(kernel.zeros == 0 for kernel in measure(quantized).kernels)
    assert np.all([kernel.size for kernel in measure(quantized).kernels])
