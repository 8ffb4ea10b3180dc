"""Every stage's step compiles for a TPU, is the step that Keras runs, and what doesn't is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.answered import answered
from tfopt.errors import ConfigError
from tfopt.tpu.chips import TOPOLOGIES, find

CONFIG = """
import numpy as np
from tfopt.config import Experiment
from tfopt.spec import spec
from tfopt.data import from_arrays
from tfopt.models import SmallCNN
from tfopt.stages import AtOnce, Prune, Quantize, Stage, Teacher


@spec
class Noise:
    def load(self, batch_size):
        images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
        labels = np.arange(64) % 10
        some = images[:16] // 2, labels[:16]
        return from_arrays(
            train=(images, labels), validation=some, test=some,
            class_names=tuple("0123456789"), batch_size=batch_size,
        )


def get_config():
    return Experiment(
        name="noise", data=Noise(), model=SmallCNN(), batch_size=32,
        stages=[
            Stage(),
            Stage(name="distil", teacher=Teacher()),
            Prune(sparsity=0.5, growth=AtOnce()),
            Quantize(),
        ],
    )
"""


def run(script):
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1].removeprefix("RESULT "))


def test_the_program_does_what_a_step_of_keras_does():
    found = run(Path(__file__).with_name("replayed.py"))
    assert found.keys() == {"train", "distil", "prune", "quantize"}
    for name, result in found.items():
        assert result["moved"] == result["weights"] > 10, name
        assert result["off"] < (1e-2 if name == "quantize" else 1e-5), name


def test_slices_are_known_by_their_chips_and_cores():
    assert [find(name).replicas for name in ("v2:2x2", "v3:4x4", "v5e:2x4")] == [8, 32, 8]
    assert all(find(name).chips for name in TOPOLOGIES)
    with pytest.raises(ConfigError, match="--topology: expected one of v2:2x2, .* 'v5e:2x2'"):
        find("v5e:3x2")


def test_bad_input_is_answered_before_tensorflow_loads(tmp_path):
    code, _, errors, loaded = answered("tpu_check", "--topology=v9:2x2")
    assert (code, loaded) == (2, "LIGHT")
    assert errors.startswith("tfopt: --topology: expected one of v2:2x2") and "v9:2x2" in errors
    code, _, errors, loaded = answered("tpu_check", "--topology=v5e:2x4", "--config.batch_size=30")
    assert (code, loaded) == (2, "LIGHT")
    assert "expected a multiple of the 8 replicas, received 30; the nearest is 24" in errors


HOST_CALLBACK = """
from tests.tpu.test_tpu_check import CONFIG
from tfopt.compat import keras, tf
from tfopt.stages import Stage


@keras.saving.register_keras_serializable("tests")
class Peek(keras.layers.Layer):
    def call(self, inputs):
        seen = tf.py_function(lambda x: x, [inputs], inputs.dtype)
        return tf.ensure_shape(seen, inputs.shape)


def model(spec):
    inputs = keras.Input(spec.shape)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(Peek(name="peek")(inputs))
    return keras.Model(inputs, keras.layers.Dense(spec.classes, name="logits")(x))


def get_config():
    exec(CONFIG, globals())
    return Experiment(
        name="peeked", data=Noise(), model=model, batch_size=32, stages=[Stage()]
    )
"""


def test_an_operator_that_no_tpu_has_is_named_with_its_layer(tmp_path):
    config = tmp_path / "peeked.py"
    config.write_text(HOST_CALLBACK)
    code, output, errors, _ = answered("tpu_check", f"--config={config}", "--topology=v5e:2x2")
    assert code == 1, errors[-2000:]
    assert "EagerPyFunc" in output and "peek" in output
    assert "Traceback" not in errors


@pytest.mark.tpu
def test_quantization_that_preserves_nothing_compiles_too(tmp_path):
    pytest.importorskip("libtpu")
    config = tmp_path / "plain.py"
    start, end = CONFIG.index("            Stage(),"), CONFIG.index("            Quantize(),")
    config.write_text(CONFIG[:start] + CONFIG[end:])
    code, output, errors, _ = answered("tpu_check", f"--config={config}", "--topology=v5e:2x2")
    assert code == 0, errors[-2000:]
    assert "quantize" in output and "train" not in output


@pytest.mark.tpu
def test_each_stage_compiles_for_a_slice_and_says_what_it_takes(tmp_path):
    pytest.importorskip("libtpu")
    config = tmp_path / "noise.py"
    config.write_text(CONFIG)
    code, output, errors, _ = answered(
        "tpu_check", f"--config={config}", "--topology=v5e:2x2", "--json"
    )
    assert code == 0, errors[-2000:]
    rows = json.loads(output)
    assert [row["stage"] for row in rows] == ["train", "distil", "prune", "quantize"]
    for row in rows:
        assert row["replicas"] == 4 and row["batch"] == 8 and not row["refused"]
        # 545,386 weights of 4 bytes, and twice as many moments.
        assert row["weights_bytes"] > 4 * 545_000 and row["optimizer_bytes"] > 8 * 544_000
        assert 0 < row["used_bytes"] < row["hbm"] == 16 * 2**30
        assert row["all_reduces"] > 0 and row["reduced_bytes"] >= 4 * 544_000
        assert row["bound_by"] in ("compute", "memory", "links") and row["examples_per_second"] > 0
    assert rows[1]["flops"] > rows[0]["flops"], "the teacher runs too"
