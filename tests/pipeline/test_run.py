"""One small run, looked at from all sides."""

import importlib
import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.answered import answered
from tests.loggers import read
from tests.pipeline.conftest import TINY
from tfopt import answers, pipeline, proof
from tfopt.checkpoint import save_model
from tfopt.compat import keras, litert, tf
from tfopt.data import Image, Spec
from tfopt.errors import ConfigError, RunError
from tfopt.export import EdgeQuantized, Float16, Int16x8
from tfopt.models import Saved
from tfopt.stages import Cluster, CorrectBias, Equalize, OneShotPrune, Prune, Stage, Teacher
from tfopt.tflite import metadata
from tfopt.workdir import config_hash

STAGES = ("train", "prune", "quantize")
FLOAT = ("float32", "float16", "dynamic", "int8")


def row_of(rows, name):
    return next(row for row in rows if f"{row['stage']}_{row['variant']}" == name)


def test_a_row_and_a_file_for_each_stage_and_variant(tiny_run):
    rows, workdir, _ = tiny_run
    names = [f"{row['stage']}_{row['variant']}" for row in rows]
    expected = [f"{stage}_{variant}" for stage in STAGES[:2] for variant in FLOAT]
    assert names == [*expected, "quantize_int8"]
    for row, name in zip(rows, names, strict=True):
        assert (workdir / "artifacts" / f"{name}.tflite").stat().st_size == row["bytes"]


def zeros_by_interpreter(path):
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    found = {}
    for details in interpreter.get_tensor_details():
        if len(details["shape"]) in (2, 4) and "serving" not in details["name"]:
            try:
                values = interpreter.get_tensor(details["index"])
            except ValueError:
                continue  # an activation: LiteRT holds no value of it before a run
            found.setdefault(values.shape, []).append(int((values == 0).sum()))
    return found


@pytest.mark.parametrize("name", ["prune_float32", "prune_int8", "quantize_int8"])
def test_zeros_of_the_report_are_in_the_file(tiny_run, name):
    rows, workdir, _ = tiny_run
    found = zeros_by_interpreter(workdir / "artifacts" / f"{name}.tflite")
    for kernel in row_of(rows, name)["kernels"]:
        assert kernel["zeros"] in found[tuple(kernel["shape"])]
        assert kernel["zeros"] / kernel["size"] == pytest.approx(0.8, abs=0.02), kernel["name"]


def test_quantization_kept_accuracy_and_runs_in_int8(tiny_run):
    row = row_of(tiny_run[0], "quantize_int8")
    assert row["ops_float"] == 0
    assert row["accuracy"] > 0.8
    assert row["accuracy"] == pytest.approx(row["keras_accuracy"], abs=0.03)


def test_report_holds_the_rows_and_what_was_asked(tiny_run, experiment):
    rows, workdir, _ = tiny_run
    report = json.loads((workdir / "report.json").read_text())
    assert report["rows"] == rows
    assert report["experiment"] == json.loads(json.dumps(experiment.to_json()))
    assert report["data"]["class_names"] == list("0123456789")
    assert "| quantize_int8 |" in (workdir / "report.md").read_text()


def test_every_artifact_says_what_it_is(tiny_run, experiment):
    rows, workdir, _ = tiny_run
    for row in rows:
        content = (workdir / "artifacts" / f"{row['stage']}_{row['variant']}.tflite").read_bytes()
        assert row["bytes"] == len(content)
        found = metadata.read(content)
        assert [found.stage, found.variant] == [row["stage"], row["variant"]]
        assert [found.accuracy, found.examples] == [row["accuracy"], row["examples"]]
        assert (found.config, found.config_hash) == ("tiny", config_hash(experiment))
        assert found.front_end == Image(peak=16) and found.shape == (8, 8, 1)
    experiment.variants, experiment.min_agreement = [], 0.1
    assert config_hash(experiment) == found.config_hash
    experiment.seed = 1
    assert config_hash(experiment) != found.config_hash


@pytest.mark.parametrize(("stage", "first"), [("train", 1), ("prune", 4), ("quantize", 7)])
def test_tensorboard_has_a_run_per_stage_on_one_axis(tiny_run, stage, first):
    events = EventAccumulator(str(tiny_run[1] / "tensorboard" / stage), {"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert events.Tags()["graph"]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        assert [event.step for event in events.Tensors(name)] == [first, first + 1, first + 2]
    kernels = ("conv1/kernel", "conv2/kernel", "dense1/kernel", "logits/kernel")
    assert tags >= {"examples_per_second", *(f"weights/{kernel}" for kernel in kernels)}
    for kernel in kernels:
        shares = [
            float(tf.make_ndarray(event.tensor_proto))
            for event in events.Tensors(f"sparsity/{kernel}")
        ]
        assert len(shares) == 3
        assert shares == sorted(shares), "sparsity grows or stays"
        if stage != "train":
            assert shares[-1] == pytest.approx(0.8, abs=0.02)


def test_tensorboard_shows_how_the_ranges_move(tiny_run):
    events = read.events(tiny_run[1] / "tensorboard" / "quantize")
    for name in ("input_range", "conv1_relu_range", "dense1/kernel"):
        low, high = (read.values(events, f"range/{name}/{end}") for end in ("low", "high"))
        assert [step for step, _ in low] == [step for step, _ in high] == [7, 8, 9]
        assert all(one <= 0 < other for (_, one), (_, other) in zip(low, high, strict=True))
        assert len({value for _, value in high}) > 1 or name == "input_range"
    before = read.events(tiny_run[1] / "tensorboard" / "prune").Tags()["tensors"]
    assert not [tag for tag in before if tag.startswith("range/")]


def test_tensorboard_has_one_session_a_run_with_the_best_artifact(tiny_run, experiment):
    rows, workdir, _ = tiny_run
    sessions = [p.name for p in (workdir / "tensorboard").iterdir() if _has_session(p)]
    assert sessions == ["artifacts"]
    events = read.events(workdir / "tensorboard" / "artifacts")
    start, end = read.session(events)
    assert start.hparams["stages[1].steps_per_execution"].number_value == 16
    assert start.hparams["deterministic"].bool_value and end.status == 1
    best = row_of(rows, "quantize_int8")
    figures = ("accuracy", "bytes", "gzip_bytes", "latency_median_us")
    shown = [read.values(events, f"best/{figure}")[0][1] for figure in figures]
    assert shown == pytest.approx([best[figure] for figure in figures])
    assert f"The best: {best['stage']}_{best['variant']}." in read.text(events, "artifacts")
    assert {f"pr/{digit}/pr_curves" for digit in range(10)} <= set(events.Tags()["tensors"])


def _has_session(folder):
    tags = read.events(folder)
    return any(m.plugin_data.plugin_name == "hparams" for m in tags.summary_metadata.values())


def test_the_same_command_again_trains_nothing(tiny_run, experiment, tmp_path, monkeypatch):
    rows, workdir = tiny_run[0], shutil.copytree(tiny_run[1], tmp_path / "run")
    monkeypatch.setattr(pipeline, "carry_out", None)
    monkeypatch.setattr(proof.evaluate, "measure", None)
    left_by_a_kill = workdir / "prune" / "epochs" / "epoch_0003"
    left_by_a_kill.mkdir(parents=True)
    assert pipeline.run(experiment, workdir) == rows
    assert not left_by_a_kill.parent.exists()


def test_another_experiment_in_the_workdir_is_refused(tiny_run, experiment):
    _, workdir, _ = tiny_run
    experiment.stages[1].sparsity = 0.9
    with pytest.raises(ConfigError, match=r"config.stages\[1\].sparsity is None \(here 0.9\)"):
        pipeline.run(experiment, workdir)


def test_the_command_line_refuses_it_before_tensorflow_loads(tiny_run):
    flags = f"--config={TINY}", f"--workdir={tiny_run[1]}", "--config.stages[1].sparsity=0.9"
    code, out, err, loaded = answered(*flags)
    assert (code, out, loaded) == (2, "", "LIGHT")
    assert err.startswith("tfopt: workdir ")
    assert err.count("\n") == 1


def test_stages_train_on_the_data_in_different_orders(experiment):
    splits = experiment.data.load(64)
    orders = [np.concatenate([y for _, y in splits.train(e).take(3)]) for e in (0, 3)]
    assert not np.array_equal(*orders)


def test_bits_that_a_layer_cannot_have_fail_before_training(experiment, tmp_path, monkeypatch):
    def model(spec):
        inputs = keras.Input(spec.shape, name="input")
        x = keras.layers.Conv2DTranspose(4, 3, name="wider")(inputs)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(inputs, keras.layers.Dense(spec.classes, name="logits")(x))

    experiment.model = model
    experiment.stages[1].teacher = None  # it compares layers that this model doesn't have
    experiment.stages[2].weights = 4
    monkeypatch.setattr(pipeline, "carry_out", None)
    with pytest.raises(ConfigError, match=r"received 'wider', a Conv2DTranspose; give it 8 by"):
        pipeline.run(experiment, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir()), "the folder is free for the corrected run"


def test_inputs_that_the_data_do_not_have_fail_before_training(experiment, tmp_path, monkeypatch):
    def joined(spec):
        one, other = (keras.Input(shape, name=f"input{len(shape)}") for shape in (spec.shape, (3,)))
        x = keras.layers.Concatenate()([keras.layers.Flatten()(one), other])
        return keras.Model([one, other], keras.layers.Dense(spec.classes, name="logits")(x))

    experiment.model = joined
    monkeypatch.setattr(pipeline, "carry_out", None)
    message = r"one input of shape \(8, 8, 1\), received inputs of shapes \[\(8, 8, 1\), \(3,\)\]"
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path)


def test_probabilities_and_models_of_another_keras_fail_before_training(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "carry_out", None)
    keras3 = importlib.import_module("keras")
    end = {"units": 10, "activation": "softmax", "name": "end"}
    for library, message in (
        (keras, "expected logits, received the probabilities of 'end'; take its softmax off"),
        (keras3, "expected a model of tf_keras, .* received a Sequential of keras; Keras 3"),
    ):
        experiment.model = lambda spec, of=library.layers, made=library.Sequential: made(
            [of.InputLayer(spec.shape), of.Flatten(), of.Dense(**end)]
        )
        with pytest.raises(ConfigError, match=message):
            pipeline.run(experiment, tmp_path)


def test_logits_of_another_size_fail_before_training(experiment, tmp_path, monkeypatch):
    experiment.model = lambda spec: keras.Sequential(
        [keras.layers.Flatten(input_shape=spec.shape), keras.layers.Dense(3)]
    )
    monkeypatch.setattr(pipeline, "carry_out", None)
    with pytest.raises(ConfigError, match=r"logits of shape \(None, 10\), received \(None, 3\)"):
        pipeline.run(experiment, tmp_path)


def test_layers_that_tflite_lacks_fail_before_training(experiment, tmp_path, monkeypatch):
    layers = keras.layers
    experiment.model = lambda spec: keras.Sequential(
        [
            layers.Reshape((4, 4, 4, 1), input_shape=spec.shape),
            layers.AveragePooling3D(),
            layers.Flatten(),
            layers.Dense(spec.classes),
        ]
    )
    experiment.stages = [Stage()]
    monkeypatch.setattr(pipeline, "carry_out", None)
    with pytest.raises(ConfigError, match="layers that TFLite can compute, .*AvgPool3D"):
        pipeline.run(experiment, tmp_path)


def test_layers_that_run_at_a_batch_of_one_alone_fail_before_training(
    experiment, tmp_path, monkeypatch
):
    layers = keras.layers
    experiment.model = lambda spec: keras.Sequential(
        [
            layers.Input(spec.shape),
            layers.GroupNormalization(4, axis=1, name="rows"),
            layers.Flatten(),
            layers.Dense(spec.classes),
        ]
    )
    experiment.stages = [Stage()]
    monkeypatch.setattr(pipeline, "carry_out", None)
    message = r"LiteRT runs at any batch, received 'rows' at one of 2 \(.*; replace them by layers"
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path)


@pytest.mark.parametrize(
    ("variant", "layer", "name"),
    [
        (Int16x8(), lambda x: tf.math.squared_difference(x, 1.0), "tf.math.squared_difference"),
        (EdgeQuantized(), lambda x: tf.split(x, 2, axis=-1)[0], "tf.split"),
    ],
    ids=["int16x8", "edge"],
)
def test_what_float_runs_and_a_variant_does_not_fails_before_training(
    variant, layer, name, experiment, tmp_path, monkeypatch
):
    def model(spec):
        inputs = keras.Input(spec.shape)
        inner = layer(keras.layers.Conv2D(4, 3)(inputs))
        return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inner)))

    experiment.model, experiment.stages, experiment.variants = model, [Stage()], [variant]
    monkeypatch.setattr(pipeline, "carry_out", None)
    message = f"^variant '{variant.name}': .* LiteRT runs at any batch, received '{name}' at one"
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path)


def test_a_teacher_of_other_classes_fails_before_training(experiment, tmp_path, monkeypatch):
    other = experiment.model(Spec(shape=(8, 8, 1), class_names=("a", "b", "c"), train_size=1))
    save_model(other, tmp_path / "other.h5")
    experiment.stages[0].teacher = Teacher(model=Saved(path=str(tmp_path / "other.h5")))
    monkeypatch.setattr(pipeline, "carry_out", None)
    message = "stage 'train', teacher 'small_cnn': .* logits of 10 classes, .* received those of 3"
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir()), "the folder is free for the corrected run"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [Stage(), Cluster(clusters=8, epochs=0), Equalize()],
            "stage 'equalize': expected the 8 distinct values .* after training, too",
        ),
        (
            [Prune(), Prune(name="less", sparsity=0.5)],
            "stage 'less': expected a sparsity .* received 0.5; 0.8",
        ),
    ],
)
def test_an_order_that_loses_what_was_won_fails_before_training(
    stages, message, experiment, tmp_path, monkeypatch
):
    experiment.stages = stages
    monkeypatch.setattr(pipeline, "carry_out", None)
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path)


def test_a_quantized_model_that_is_loaded_becomes_what_it_can(
    tiny_run, experiment, tmp_path, monkeypatch
):
    experiment.model = Saved(path=str(tiny_run[1] / "quantize" / "model.h5"))
    experiment.stages = [Stage(epochs=0)]
    assert [row["variant"] for row in pipeline.run(experiment, tmp_path / "run")] == ["int8"]
    experiment.variants = [Float16()]
    monkeypatch.setattr(pipeline, "carry_out", None)
    with pytest.raises(ConfigError, match="expected a model without quantization-aware layers"):
        pipeline.run(experiment, tmp_path / "other")


def test_a_loss_that_is_not_finite_stops_with_step_and_rate(experiment, tmp_path):
    experiment.stages = [
        Stage(epochs=1, learning_rate=1e30, optimizer=experiment.stages[0].optimizer)
    ]
    message = (
        r"stage 'train': expected a finite loss, received nan by step \d+ at learning rate 1e\+30"
    )
    with pytest.raises(RunError, match=message):
        pipeline.run(experiment, tmp_path)


def test_an_update_that_breaks_the_model_stops_before_it_is_saved(experiment, tmp_path):
    # One step an epoch: the loss before the update is fine, only validation sees what it did.
    experiment.batch_size = 1024
    experiment.stages = [
        Stage(epochs=1, learning_rate=1e38, optimizer=experiment.stages[0].optimizer)
    ]
    with pytest.raises(RunError, match=r"received (nan|inf) by step 1 at learning rate 1e\+38"):
        pipeline.run(experiment, tmp_path)
    assert not list(tmp_path.glob("train/epochs/*"))


def test_a_lower_limit_goes_on_and_a_missed_one_is_measured_again(
    tiny_run, experiment, tmp_path, monkeypatch
):
    workdir = shutil.copytree(tiny_run[1], tmp_path / "run")
    monkeypatch.setattr(pipeline, "carry_out", None)
    experiment.min_agreement = 0.6
    assert pipeline.run(experiment, workdir) == tiny_run[0]
    rows = json.loads((workdir / "quantize" / "rows.json").read_text())
    rows[0]["agreement"] = 0.5
    (workdir / "quantize" / "rows.json").write_text(json.dumps(rows))
    again = pipeline.run(experiment, workdir)
    assert [row["agreement"] for row in again] == [row["agreement"] for row in tiny_run[0]]


def test_a_loaded_model_keeps_its_zeros_from_the_first_stage_on(
    tiny_run, experiment, tmp_path, caplog
):
    caplog.set_level("INFO")
    pruned = tiny_run[1] / "prune" / "model.h5"
    experiment.model, experiment.stages = Saved(path=str(pruned)), [Stage(epochs=1)]
    rows = pipeline.run(experiment, tmp_path)
    assert row_of(rows, "train_int8")["sparsity"] == row_of(tiny_run[0], "prune_int8")["sparsity"]
    assert sum("the loaded model has" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Equalize(), Stage()], "'equalize': expected a trained model, received one of random"),
        ([OneShotPrune(sparsity=0.5)], "'one_shot': expected a trained model"),
        (
            [Stage(), CorrectBias(), Equalize()],
            "'equalize': .* after 'correct_bias', which",
        ),
        ([Stage(), CorrectBias(), Stage(name="more")], "'more': .* after 'correct_bias', which"),
    ],
)
def test_a_stage_that_has_nothing_to_work_on_or_is_undone_is_refused(
    experiment, tmp_path, stages, message
):
    experiment.stages = stages
    with pytest.raises(ConfigError, match=message):
        pipeline.run(experiment, tmp_path)


def test_a_quantized_model_is_where_an_experiment_ends(tiny_run, experiment, tmp_path):
    experiment.model = Saved(path=str(tiny_run[1] / "quantize" / "model.h5"))
    experiment.stages = [Prune()]
    with pytest.raises(ConfigError, match="a model that isn't quantization-aware yet"):
        pipeline.run(experiment, tmp_path)
    experiment.stages = [Stage(epochs=0)]
    (row,) = pipeline.run(experiment, tmp_path)
    assert row["accuracy"] == row_of(tiny_run[0], "quantize_int8")["accuracy"]


def test_a_sequential_model_is_taken_and_a_subclassed_one_is_not(experiment, tmp_path):
    layers, experiment.stages = keras.layers, [Stage(epochs=0)]
    experiment.model = lambda spec: keras.Sequential(
        [layers.Input(spec.shape), layers.Flatten(), layers.Dense(spec.classes)]
    )
    assert pipeline.run(experiment, tmp_path / "sequential")

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    experiment.model = lambda _: Subclassed()
    with pytest.raises(ConfigError, match="functional model, received a Subclassed whose"):
        pipeline.run(experiment, tmp_path / "other")
    experiment.model = keras.Sequential([layers.Dense(10)])
    with pytest.raises(ConfigError, match="expected a function of the data's spec .* received a"):
        pipeline.run(experiment, tmp_path / "other")


def test_the_artifact_to_take_is_the_one_within_the_budget_everywhere(tiny_run):
    _, workdir, output = tiny_run
    report = json.loads((workdir / "report.json").read_text())
    assert report["best"] == "quantize_int8"
    assert "artifact quantize_int8: " in output and (workdir / "artifacts/quantize_int8.c").exists()
    page = (workdir / "report.html").read_text()
    assert '<p class="lede"><b>quantize_int8</b>' in page
    described = metadata.read((workdir / "artifacts/quantize_int8.tflite").read_bytes())
    assert described.config_hash == report["config_hash"] in page


def test_answers_on_the_test_split_are_kept(tiny_run):
    rows, workdir, _ = tiny_run
    for row in rows:
        found = answers.read(workdir / row["stage"], row["variant"])
        expected = answers.read(workdir / row["stage"], answers.KERAS)
        assert found.accuracy == row["accuracy"]
        assert expected.accuracy == row["keras_accuracy"]
        assert np.array_equal(found.labels, expected.labels)
        difference = np.abs(found.logits - expected.logits).max()
        assert difference == pytest.approx(row["max_logit_difference"], rel=1e-5)
