import re

import numpy as np
import pytest
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.pr_curve import metadata

from tests.loggers import read
from tfopt.compat import tf
from tfopt.loggers import logged

ASKED = {"name": "x", "seed": 0, "deterministic": True, "stages[0]": "Prune"}


def shown(workdir, failed=False):
    with logged([], workdir) as logger:
        logger.hparams(ASKED)
        logger.scalars("train", {"loss": 0.5}, 3)
        if failed:
            raise KeyboardInterrupt
        logger.histograms("train", {"weights/conv": np.arange(9)}, 3)
        logger.figures("train", {"artifact_int8/bytes": 7})
        logger.figures("", {"best/accuracy": 0.75})
        logger.text("artifacts", "| a |")
        is_one, scores = np.array([1, 1, 0, 0], bool), np.array([1.0, 0.4, 0.6, 0.0])
        logger.pr_curves({"pr/cat": (is_one, scores)})


def test_a_run_for_the_stage_and_one_for_what_is_true_of_all(tmp_path):
    shown(tmp_path)
    stage, run = (read.events(tmp_path / "tensorboard" / name) for name in ("train", "artifacts"))
    assert read.values(stage, "loss") == [(3, 0.5)]
    assert read.values(stage, "artifact_int8/bytes") == [(0, 7)]
    assert stage.Tensors("weights/conv")[0].step == 3
    assert read.values(run, "best/accuracy") == [(0, 0.75)]
    assert read.text(run, "artifacts") == "| a |"
    assert "loss" not in run.Tags()["tensors"]


def test_pr_curves_are_those_of_the_scores(tmp_path):
    shown(tmp_path)
    run = read.events(tmp_path / "tensorboard/artifacts")
    (event,) = run.Tensors("pr/cat/pr_curves")
    found = tf.make_ndarray(event.tensor_proto)
    middle = found[:, found.shape[1] // 2]  # by a threshold of 0.5
    rows = metadata.TRUE_POSITIVES_INDEX, metadata.FALSE_POSITIVES_INDEX
    assert middle[[*rows]].tolist() == [1, 1]
    assert middle[metadata.PRECISION_INDEX] == middle[metadata.RECALL_INDEX] == 0.5


def test_charts_take_the_tags_that_are_written(tmp_path):
    shown(tmp_path)
    charts = read.charts(read.events(tmp_path / "tensorboard/artifacts"))
    assert list(charts) == ["loss", "accuracy", "sparsity", "ranges"]
    for title, tag in (("loss", "val_loss"), ("sparsity", "sparsity/conv/kernel")):
        takes = [name for name, tags in charts.items() if any(re.search(t, tag) for t in tags)]
        assert takes == [title]


@pytest.mark.parametrize("failed", [False, True])
def test_a_session_says_what_was_asked_and_how_it_ended(tmp_path, failed):
    shown(tmp_path)
    before = set((tmp_path / "tensorboard/artifacts").iterdir())
    ASKED["seed"] += 1
    try:
        shown(tmp_path, failed)
    except KeyboardInterrupt:
        assert failed
    folders = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert folders == {"train", "artifacts"}
    assert not before & set((tmp_path / "tensorboard/artifacts").iterdir())
    start, end = read.session(read.events(tmp_path / "tensorboard/artifacts"))
    assert {n: getattr(v, v.WhichOneof("kind")) for n, v in start.hparams.items()} == ASKED
    assert end.status == (api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS)


def test_nothing_is_written_for_who_was_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt), logged([], tmp_path):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
