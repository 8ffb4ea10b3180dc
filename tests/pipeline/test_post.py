"""What needs no training: stages that only rewrite, and other variants of a finished run."""

import json
import shutil

import numpy as np
import pytest

from tfopt import answers, evaluate, pipeline, proof
from tfopt.checkpoint import load_model
from tfopt.config import Experiment
from tfopt.errors import ConfigError
from tfopt.export import MSE, EdgeQuantized, Float32, Int8, Int16x8
from tfopt.stages import CorrectBias, Equalize, Quantize, Stage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The experiment, the workdir and the rows of a run with both stages of 0 epochs."""
    from tfopt.data import Digits
    from tfopt.models import SmallCNN

    experiment = Experiment(
        name="post",
        data=Digits(),
        model=SmallCNN(filters=(8, 8), units=16),
        batch_size=64,
        min_agreement=0.5,
        stages=[Stage(epochs=1, learning_rate=0.01), Equalize(), CorrectBias()],
        variants=[Float32(), Int8(), Int8(calibration=MSE())],
    )
    workdir = tmp_path_factory.mktemp("post")
    return experiment, workdir, pipeline.run(experiment, workdir)


class Unconverted:
    """A third party's variant with the name that the Keras model's answers have."""

    name = answers.KERAS
    takes_quantized = False

    def convert(self, model, examples):
        return b""


def files(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "artifacts").glob("*.tflite")}


def test_equalized_logits_are_those_of_the_trained_model(finished):
    experiment, workdir, _ = finished
    test = experiment.data.load(64).test
    trained, equalized = (
        evaluate.logits(load_model(workdir / stage / "model.h5"), test)[0]
        for stage in ("train", "equalize")
    )
    np.testing.assert_allclose(equalized, trained, rtol=1e-3, atol=1e-4)


def test_other_variants_are_proven_without_training(finished, tmp_path, monkeypatch):
    experiment, workdir, rows = finished
    workdir = shutil.copytree(workdir, tmp_path / "again")
    monkeypatch.setattr(pipeline, "carry_out", None)
    measured, measure = [], proof.evaluate.measure

    def counted(artifact, **options):
        measured.append(artifact.name)
        return measure(artifact, **options)

    monkeypatch.setattr(proof.evaluate, "measure", counted)
    stages = [stage.name for stage in experiment.stages]
    experiment = Experiment(
        **{name: getattr(experiment, name) for name in ("name", "data", "model", "batch_size")},
        min_agreement=0.5,
        stages=experiment.stages,
        variants=[Int16x8(), Int8(), Int8(calibration=MSE(), examples=100)],
    )
    found = pipeline.run(experiment, workdir)
    # Of the same name, and yet another variant: 100 examples.
    fresh = [f"{stage}_{name}" for stage in stages for name in ("int16x8", "int8_mse")]
    assert measured == fresh
    names = [f"{row['stage']}_{row['variant']}" for row in found]
    assert names == [f"{s}_{name}" for s in stages for name in ("int16x8", "int8", "int8_mse")]
    assert sorted(files(workdir)) == sorted(f"{name}.tflite" for name in names)
    assert [row for row in found if row["variant"] == "int8"] == [
        row for row in rows if row["variant"] == "int8"
    ]
    assert json.loads((workdir / "report.json").read_text())["rows"] == found


def test_a_file_that_is_gone_cut_or_of_another_stage_is_not_taken_for_proven(
    finished, tmp_path, monkeypatch
):
    experiment, workdir, rows = finished
    workdir = shutil.copytree(workdir, tmp_path / "again")
    artifacts, whole = workdir / "artifacts", files(workdir)
    gone, cut, *_ = sorted(whole)
    (artifacts / gone).unlink()
    (artifacts / cut).write_bytes(whole[cut][:100])
    (artifacts / "train_old.tflite").write_bytes(b"of a variant that was left out")
    monkeypatch.setattr(pipeline, "carry_out", None)
    found = pipeline.run(experiment, workdir)
    assert files(workdir) == whole
    timed = ("latency_median_us", "latency_p90_us")
    kept = [{name: value for name, value in row.items() if name not in timed} for row in found]
    assert kept == [
        {name: value for name, value in row.items() if name not in timed} for row in rows
    ]


def test_a_variant_that_cannot_be_is_refused_before_training(finished, tmp_path, monkeypatch):
    experiment = finished[0]
    monkeypatch.setattr(pipeline, "carry_out", None)
    asked = {name: getattr(experiment, name) for name in ("name", "data", "model", "batch_size")}
    with pytest.raises(ConfigError, match="'int8_mixed', exclude.*received 'convolution'"):
        pipeline.run(
            Experiment(**asked, stages=[Stage()], variants=[Int8(exclude=("convolution",))]),
            tmp_path,
        )
    with pytest.raises(ConfigError, match="received 'int8' twice; leave one of them out"):
        Experiment(**asked, stages=[Stage()], variants=[Int8(), Int8(examples=3)]).validate()
    with pytest.raises(
        ConfigError, match=rf"variants\[0\]: .*'{answers.KERAS}'; rename the variant"
    ):
        Experiment(**asked, stages=[Stage()], variants=[Unconverted()]).validate()
    with pytest.raises(ConfigError, match="received 'edge_w4_a8_octav' with stage 'quantize'"):
        Experiment(**asked, stages=[Quantize()], variants=[EdgeQuantized()]).validate()


def test_the_report_has_what_was_proven_until_an_artifact_missed(finished, tmp_path, monkeypatch):
    experiment, workdir, rows = finished
    workdir = shutil.copytree(workdir, tmp_path / "again")
    (workdir / "equalize" / "rows.json").unlink()
    (workdir / "report.json").unlink()
    measure = proof.evaluate.measure

    def missing(artifact, **options):
        if artifact.name == "equalize_int8":
            raise pipeline.ArtifactError("missed")
        return measure(artifact, **options)

    with monkeypatch.context() as patched:
        patched.setattr(proof.evaluate, "measure", missing)
        with pytest.raises(pipeline.ArtifactError, match="missed"):
            pipeline.run(experiment, workdir)
    report = json.loads((workdir / "report.json").read_text())
    names = [f"{row['stage']}_{row['variant']}" for row in report["rows"]]
    assert names == ["train_float32", "train_int8", "train_int8_mse", "equalize_float32"]
    assert [stage["name"] for stage in report["stages"]] == ["train", "equalize"]
    assert report["ended_by"] == "missed"
    assert "**Failed**: missed" in (workdir / "report.md").read_text()
    assert "Failed.</b> missed" in (workdir / "report.html").read_text()
    assert len(pipeline.run(experiment, workdir)) == len(rows)
    assert "Failed" not in (workdir / "report.md").read_text()
