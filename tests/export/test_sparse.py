"""The sparse form: read as the dense one, run as it, and refused where LiteRT can't."""

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras, tf, tflite_schema
from tfopt.errors import ConfigError
from tfopt.runner import Runner
from tfopt.spec import check_tree
from tfopt.stages import Quantize
from tfopt.tflite import flatbuffer, micro
from tfopt.tflite.densify import densified

EXAMPLES = np.random.default_rng(0).standard_normal((16, 6, 6, 32)).astype(np.float32)


def small(block=1):
    """A model of 80% zeros, those of a unit or filter in blocks of so many."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6, 6, 32), name="input")
    x = keras.layers.Conv2D(64, 3, activation="relu", name="conv")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="small")
    for name in ("conv", "hidden", "logits"):
        kernel, bias = model.get_layer(name).get_weights()
        blocks = kernel.reshape(-1, block, kernel.shape[-1])
        norms = np.abs(blocks).sum(1, keepdims=True)
        blocks *= norms > np.quantile(norms, 0.8)
        model.get_layer(name).set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module", params=[1, 16], ids=["single", "blocks"])
def model(request):
    return small(request.param)


def outputs(content):
    return Runner(export.Artifact(stage="s", variant="v", content=content), threads=1)(EXAMPLES)


def constants(content):
    return {kernel.name: kernel for kernel in flatbuffer.read(content).kernels()}


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda **o: export.Float32(**o), 0.5),
        (lambda **o: export.Float16(**o), 0.8),
        # Dense layers of single zeros stay dense in int8.
        (lambda **o: export.Int8(calibration=export.MSE(), float_io=True, **o), 0.85),
    ],
    ids=["float32", "float16", "int8_mse_float_io"],
)
def test_a_sparse_file_is_smaller_and_holds_and_computes_the_same(model, make, most):
    dense, sparse = (make(sparse=so).convert(model, EXAMPLES) for so in (False, True))
    assert make(sparse=True).name == make().name + "_sparse"
    assert len(sparse) < most * len(dense)
    assert constants(sparse) == constants(dense)
    assert flatbuffer.read(sparse).kernels() != ()
    np.testing.assert_allclose(outputs(sparse), outputs(dense), atol=1e-6)


def test_what_was_trained_for_int8_is_stored_so_too():
    stage, samples = Quantize(), tf.data.Dataset.from_tensors((EXAMPLES, 0))
    qat = stage.finish(stage.prepare(small(), 0, samples))
    dense, sparse = (export.Int8(sparse=so).convert(qat, EXAMPLES) for so in (False, True))
    assert len(sparse) < 0.85 * len(dense)
    assert constants(sparse) == constants(dense)
    np.testing.assert_allclose(outputs(sparse), outputs(dense), atol=1e-6)


def test_a_file_that_is_no_smaller_is_told(caplog):
    inputs = keras.Input((6, 6, 32), name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    dense = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")
    content = export.Float32(sparse=True).convert(dense, EXAMPLES)
    assert len(content) >= len(export.Float32().convert(dense, EXAMPLES))
    assert "variant float32_sparse: its" in caplog.text and "leave sparse out" in caplog.text


def test_a_microcontroller_refuses_it_by_name(model):
    graph = flatbuffer.read(export.Int8(sparse=True).convert(model, EXAMPLES))
    reasons = micro.refusals(graph)
    assert any("it has no sparse tensors, as 'small/conv/" in reason for reason in reasons)


@pytest.mark.parametrize(
    "variant", [export.DynamicRange, export.Int16x8, export.EdgeQuantized], ids=lambda v: v.kind
)
def test_what_litert_cannot_run_is_refused_at_once(variant):
    with pytest.raises(ConfigError, match=r"v.sparse: expected False, as LiteRT .* Int8\(\)"):
        check_tree(variant(sparse=True), "v")


def test_kernels_of_four_bits_are_refused_before_training():
    stage, samples = Quantize(weights=4), tf.data.Dataset.from_tensors((EXAMPLES, 0))
    four = stage.finish(stage.prepare(small(), 0, samples))
    with pytest.raises(ConfigError, match="'int8_sparse', sparse: .*'conv' was trained for 4"):
        export.Int8(sparse=True).check(four)


def level(dense=0, segments=(), indices=()):
    made = tflite_schema.DimensionMetadataT()
    made.format, made.denseSize = int(not dense), dense
    for name, values in (("arraySegments", segments), ("arrayIndices", indices)):
        vector = tflite_schema.Int32VectorT()
        vector.values = list(values)
        setattr(made, name, vector)
    return made


def form(levels, order, blocks=None):
    made = tflite_schema.SparsityParametersT()
    made.dimMetadata, made.traversalOrder, made.blockMap = levels, order, blocks
    return made


def test_any_order_and_blocks_are_read():
    expected = np.float32([[1, 0, 2, 0], [0, 0, 3, 0]])
    by_row = form([level(2), level(0, (0, 2, 3), (0, 2, 2))], [0, 1])
    by_column = form([level(4), level(0, (0, 1, 1, 3, 3), (0, 0, 1))], [1, 0])
    for found in (by_row, by_column):
        assert np.array_equal(densified(found, np.float32([1, 2, 3]), (2, 4)), expected)
    # Blocks of 2×2, of which there are two in a row; the first is all zeros.
    blocked = form([level(1), level(0, (0, 1), (1,)), level(2), level(2)], [0, 1, 2, 3], [0, 1])
    found = densified(blocked, np.float32([1, 2, 3, 4]), (2, 4))
    assert np.array_equal(found, np.float32([[0, 0, 1, 2], [0, 0, 3, 4]]))


@pytest.mark.parametrize(
    "wrong",
    [
        form([level(2), level(0, (0, 2, 4), (0, 2, 2))], [0, 1]),
        form([level(2), level(0, (0, 2, 1), (0, 2, 2))], [0, 1]),
        form([level(2**30), level(2**30)], [0, 1]),
        form([level(2), level(0, (0, 2, 3), (0, 9, 2))], [0, 1]),
        form([level(2)], [0, 1]),
        form([level(2), level(4)], [0, 0]),
    ],
)
def test_damage_is_an_error(wrong):
    with pytest.raises((ValueError, IndexError)):
        densified(wrong, np.float32([1, 2, 3]), (2, 4))
