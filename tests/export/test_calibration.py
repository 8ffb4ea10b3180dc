import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.export import MSE, Float32, Int8, MinMax, Percentile
from tfopt.export.calibration import Histogram, ranges
from tfopt.tflite import flatbuffer

RNG = np.random.default_rng(0)


def seen(values):
    low, high = min(values.min(), 0), max(values.max(), 0)
    counts = np.histogram(values, 4096, (low, high))[0]
    return Histogram(low=low, high=high, counts=counts, zeros=np.sum(values == 0))


def squared_error(values, low, high):
    step = (high - low) / 255
    return np.mean((np.round((np.clip(values, low, high) - low) / step) * step + low - values) ** 2)


def test_percentile_cuts_its_share_at_each_end():
    values = RNG.normal(size=100_000)
    low, high = Percentile(percent=99).clip(seen(values))
    assert (low, high) == pytest.approx(np.percentile(values, [1, 99]), abs=0.01)
    assert Percentile(percent=100).clip(seen(values)) == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("tail", [1, 4, 50])
@pytest.mark.parametrize("rectified", [False, True])
def test_mse_finds_nearly_the_least_error(tail, rectified):
    values = RNG.normal(size=20_000)
    values[:20] *= tail
    values = np.maximum(values, 0) if rectified else values
    found = squared_error(values, *MSE().clip(seen(values)))
    shares = np.linspace(0.02, 1, 50)
    grid = [
        squared_error(values, low * values.min(), high * values.max())
        for low in ([1] if rectified else shares)
        for high in shares
    ]
    assert found <= 1.1 * min(grid)
    assert found <= 1.01 * squared_error(values, min(values.min(), 0), values.max())


def test_extremes_are_those_of_the_converter():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2), name="input")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    examples = RNG.normal(size=(70, 8, 8, 2)).astype(np.float32)
    found = ranges(Float32().convert(model, examples), {"examples": examples}, MinMax())
    graph = flatbuffer.read(Int8().convert(model, examples))
    scales = {t.name: t.scales[0] for op in graph.operators for t in op.outputs}
    assert len(found) == 1 + len(scales) == 4
    spans = {name: (high - low) / 255 for name, (low, high) in found.items()}
    assert scales == {name: pytest.approx(spans[name], rel=1e-5) for name in scales}
