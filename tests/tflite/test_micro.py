import shutil
import subprocess

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras
from tfopt.tflite import flatbuffer, flatgraph, micro
from tfopt.tflite.c_array import c_array
from tfopt.tflite.micro import Buffer


def test_no_two_that_are_alive_overlap_and_the_arena_is_hardly_more_than_the_peak():
    rng = np.random.default_rng(0)
    for _ in range(300):
        spans = np.sort(rng.integers(0, 12, (rng.integers(1, 15), 2)))
        sizes = 16 * rng.integers(1, 40, len(spans))
        buffers = [
            Buffer("", int(size), int(first), int(last))
            for size, (first, last) in zip(sizes, spans, strict=True)
        ]
        offsets = micro.placed(buffers)
        rows = list(zip(offsets, buffers, strict=True))
        for index, (start, one) in enumerate(rows):
            for other_start, other in rows[:index]:
                apart = one.last < other.first or other.last < one.first
                below = start + one.size <= other_start or other_start + other.size <= start
                assert apart or below
        alive = [sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(12)]
        end = max(start + buffer.size for start, buffer in rows)
        assert max(alive) <= end <= 1.5 * max(alive)


def small(activation="relu"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="input")
    x = keras.layers.Conv2D(16, 3, padding="same", activation=activation, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x), name="net")


@pytest.fixture(scope="module")
def examples():
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def content(examples):
    return export.Int8().convert(small(), examples)


def test_the_arena_of_a_file_and_where_it_is_full(content):
    found = micro.plan(flatbuffer.read(content))
    # The input and what the convolution makes of it, in int8.
    assert found == micro.Plan(
        bytes=8 * 8 * 3 + 8 * 8 * 16, peak=8 * 8 * 3 + 8 * 8 * 16, peak_at="CONV_2D conv"
    )
    float_plan = micro.plan(
        flatbuffer.read(export.Float32().convert(small(), np.zeros((1, 8, 8, 3))))
    )
    assert float_plan.bytes == 4 * found.bytes


def test_what_it_cant_run_is_told_by_operator(content, examples):
    assert micro.refusals(flatbuffer.read(content)) == []
    float16 = flatbuffer.read(export.Float16().convert(small(), examples))
    told = micro.refusals(float16)
    assert told and all("it has no float16 here" in reason for reason in told)
    gelu = flatbuffer.read(export.Float32().convert(small("gelu"), examples))
    assert any("it has no such operator" in reason for reason in micro.refusals(gelu))
    large = keras.Sequential([keras.layers.Dense(512, input_shape=(512,), name="dense")])
    hybrid = export.DynamicRange().convert(large, np.zeros((1, 512), np.float32))
    (reason,) = micro.refusals(flatbuffer.read(hybrid))
    assert "no hybrid kernels" in reason and "dense" in reason


def dense(dtype="int8", kernel="int8", **options):
    """A graph of one FULLY_CONNECTED, whose input and output are of `dtype`."""
    x, y = (tensor(name, (1, 64), dtype) for name in "xy")
    w = tensor("w", (64, 64), kernel, np.zeros((64, 64), np.int8))
    return graph([("FULLY_CONNECTED", [x, w], [y])], [x], [y])


def tensor(name, shape, dtype, values=None, keeps=False):
    return flatgraph.Tensor(
        name=name, shape=shape, dtype=dtype, scales=(), zero_points=(), axis=0, values=values,
        keeps=keeps,
    )  # fmt: skip


def graph(operators, inputs, outputs):
    made = [
        flatgraph.Operator(kind=kind, inputs=tuple(i), outputs=tuple(o)) for kind, i, o in operators
    ]
    return flatgraph.Graph(inputs=tuple(inputs), outputs=tuple(outputs), operators=tuple(made))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (dense(), []),
        (dense(kernel="int4"), []),
        (dense("int16"), []),
        (dense("uint8", "uint8"), ["FULLY_CONNECTED y: it has no uint8 kernel"]),
        (dense("float32"), ["FULLY_CONNECTED y: it has no hybrid kernels, of float inputs and"]),
        (dense("string"), ["FULLY_CONNECTED y: it has no string here"]),
    ],
)
def test_types_are_those_of_its_kernels(made, told):
    found = micro.refusals(made)
    assert [reason.startswith(text) for reason, text in zip(found, told, strict=True)] == [
        True
    ] * len(told)


def test_operators_of_its_own_are_known():
    x, y = tensor("x", (1, 16), "int8"), tensor("y", (1, 16), "int8")
    for kind in ("CIRCULAR_BUFFER", "TFLite_Detection_PostProcess"):
        assert micro.refusals(graph([(kind, [x], [y])], [x], [y])) == []


def test_states_are_kept_beside_the_activations():
    x, y = tensor("x", (1, 16), "int8"), tensor("y", (1, 16), "int8")
    state = tensor("state", (1, 100), "int16", keeps=True)
    found = micro.plan(graph([("SVDF", [x, state], [y])], [x], [y]))
    assert found == micro.Plan(bytes=32, peak=32, peak_at="SVDF y", states=208)
    assert micro.plan(graph([], [x], [x])).bytes == 0
    assert micro.plan(graph([("WHILE", [x], [y])], [x], [y])) is None


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_c_array_compiles_to_the_bytes_of_the_file(content, tmp_path):
    header, source = c_array(content, "net", 'a "name\\')
    (tmp_path / "net.h").write_text(header)
    (tmp_path / "net.c").write_text(source)
    (tmp_path / "main.c").write_text(
        '#include <stdint.h>\n#include <stdio.h>\n#include "net.h"\n'
        "int main(void) {\n  if ((uintptr_t)net % 16) return 1;\n"
        "  return fwrite(net, 1, net_len, stdout) != net_len;\n}\n"
    )
    command = [
        "gcc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "main.c",
        "net.c",
        "-o",
        "program",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, check=True)
    assert done.stdout == content
