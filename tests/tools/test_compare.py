import json

import flatbuffers
import numpy as np
import pytest

from tests.answered import answered
from tests.pipeline.conftest import TINY
from tfopt import export
from tfopt.compat import keras, tf, tflite_schema
from tfopt.data import Digits
from tfopt.models import MLP
from tfopt.tools.compare import main

CONFIG = f"--config={TINY}"


@pytest.fixture(scope="module")
def splits():
    return Digits().load(64)


@pytest.fixture(scope="module")
def models(splits):
    keras.utils.set_random_seed(0)
    return [MLP()(splits.spec) for _ in range(2)]


@pytest.fixture(scope="module")
def files(models, splits, tmp_path_factory):
    folder, examples = tmp_path_factory.mktemp("files"), next(iter(splits.samples))[0].numpy()
    variants = export.Float32(), export.Int8()
    paths = [folder / f"{variant.name}.tflite" for variant in variants]
    for path, variant, model in zip(paths, variants, models, strict=True):
        path.write_bytes(variant.convert(model, examples))
    return paths


def test_the_figures_are_those_of_the_models(files, models, splits, capsys):
    assert main([*map(str, files), CONFIG, "--json", "--most=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    batches = [(x.numpy(), y.numpy(), w.numpy() > 0) for x, y, w in splits.test]
    labels = np.concatenate([y[real] for _, y, real in batches])
    named = [
        np.concatenate([model.predict_on_batch(x)[real] for x, _, real in batches]).argmax(-1)
        for model in models
    ]
    assert found["examples"] == len(labels) and len(found["furthest"]) == 3
    assert found["accuracy"][0][0] == np.mean(named[0] == labels)
    assert found["accuracy"][1][0] == pytest.approx(np.mean(named[1] == labels), abs=0.02)
    assert found["agreement"] == pytest.approx(np.mean(named[0] == named[1]), abs=0.02)


def test_the_text_names_both_files(files, capsys):
    assert main([*map(str, files), CONFIG]) == 0
    text = capsys.readouterr().out
    assert "359 examples of the test split" in text and "McNemar's test: p = " in text
    assert all(heads in text for heads in ("class", "float32", "int8", "furthest apart on"))


def test_files_of_another_origin(files, splits, tmp_path, capsys):
    weights = tf.random.stateless_normal((64, 10), (1, 2))

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32)])
    def other(images):
        return tf.matmul(tf.reshape(images, (1, 64)), weights)  # which takes one at a time

    function = other.get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    model = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
    model.signatureDefs = []
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path / "other.tflite"
    path.write_bytes(bytes(builder.Output()))
    assert main([str(files[0]), str(path), CONFIG, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    named = [
        tf.matmul(tf.reshape(x, (-1, 64)), weights).numpy()[w.numpy() > 0].argmax(-1)
        == y.numpy()[w.numpy() > 0]
        for x, y, w in splits.test
    ]
    assert found["accuracy"][1][0] == pytest.approx(np.concatenate(named).mean(), abs=0.01)


def test_bad_input(files, tmp_path):
    text = tmp_path / "text.tflite"
    text.write_text("hello")
    for wrong, message in [
        (str(tmp_path / "none.tflite"), "none.tflite: No such file or directory."),
        (str(text), "text.tflite: it is "),
    ]:
        code, _, errors, loaded = answered("compare", str(files[0]), wrong, CONFIG)
        assert (code, loaded) == (2, "LIGHT"), errors
        assert f"tfopt: can't read {tmp_path}/{message}" in errors and errors.count("\n") == 1


def test_a_file_for_other_data(files, tmp_path):
    inputs = keras.Input((5,), name="input")
    other = keras.Model(inputs, keras.layers.Dense(10, name="logits")(inputs))
    path = tmp_path / "other.tflite"
    path.write_bytes(export.Float32().convert(other, np.zeros((1, 5), np.float32)))
    code, _, errors, _ = answered("compare", str(files[0]), str(path), CONFIG)
    assert code == 2 and "Traceback" not in errors
    assert "takes examples of shape (8, 8, 1) and gives 10 numbers" in errors
    assert "received one that takes [(5,)] and gives [(10,)]" in errors
