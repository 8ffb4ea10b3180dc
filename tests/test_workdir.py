import os

import pytest

from tfopt.config import Experiment, Mesh
from tfopt.data import Digits
from tfopt.errors import ConfigError
from tfopt.loggers import WandB
from tfopt.models import MLP, SmallCNN
from tfopt.stages import EMA, Prune, Stage
from tfopt.workdir import alone_in, check_shared, check_workdir, claim


def experiment(*stages, **changes):
    changes = {"model": MLP(), "stages": [*stages] or [Stage(), Prune()], **changes}
    return Experiment(name="x", data=Digits(), **changes)


@pytest.fixture
def workdir(tmp_path):
    claim(tmp_path, experiment(source="code"))
    return tmp_path


def refusal(workdir, other):
    with pytest.raises(ConfigError) as caught:
        check_workdir(workdir, other)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (experiment(seed=1, source="code"), "whose config.seed is 0 (here 1); choose another"),
        (experiment(source="new"), "whose config file has other code (config.source 'code', here"),
        (experiment(seed=1, source="new"), "config.seed is 0 (here 1), and whose config file has"),
        (experiment(model=SmallCNN(), source="code"), "config.model is MLP() (here SmallCNN());"),
        (
            experiment(Stage(average=EMA()), Prune(), source="code"),
            "whose config.stages[0].average is None (here EMA());",
        ),
        (
            experiment(Stage(), source="code"),
            "whose config.stages is [Stage(), Prune()] (here [Stage()]);",
        ),
        (
            experiment(seed=1, batch_size=2, replicas=2, deterministic=True, source="new"),
            "and 1 more differ; choose",
        ),
    ],
)
def test_says_what_differs(workdir, other, words):
    assert words in refusal(workdir, other)


def test_takes_its_own_again_with_other_variants_devices_and_loggers(workdir):
    check_workdir(workdir, experiment(loggers=[WandB(project="x")], profile=True, source="code"))
    check_workdir(workdir, experiment(min_agreement=0.5, source="code"))
    check_workdir(workdir, experiment(strategy="mesh", mesh=Mesh(batch=2), source="code"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("experiment.json", "delete it if the folder is this experiment's, or choose another"),
        ("train/stage.json", "/train, {}/prune to train from there on again"),
        ("prune/rows.json", "delete it to have the artifacts measured again"),
    ],
)
def test_a_file_that_was_cut_off_is_named_with_its_remedy(workdir, name, remedy):
    path = workdir / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"name": "tr')
    message = refusal(workdir, experiment(source="code"))
    assert message.startswith(f"{path}: expected JSON as tfopt wrote it, received a damaged file")
    assert remedy.format(workdir) in message


def test_a_workdir_that_the_chief_didnt_claim_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a folder that all hosts share"):
        check_shared(tmp_path)


def test_a_second_run_is_kept_out_until_the_first_has_ended(tmp_path):
    refused = f"no other run in it, received that of process {os.getpid()}; wait"
    with alone_in(tmp_path), pytest.raises(ConfigError, match=refused), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_told(tmp_path, caplog):
    (tmp_path / "mine.txt").write_text("mine")
    check_workdir(tmp_path, experiment())
    assert "holds no run yet but other things, as 'mine.txt'" in caplog.text
