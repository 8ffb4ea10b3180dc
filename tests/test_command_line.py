"""Bad input: one sentence with the nearest right name, exit code 2, before TensorFlow loads."""

import json
from pathlib import Path

import pytest

import tfopt
from tests.answered import answered
from tfopt.command_line import parse
from tfopt.errors import ConfigError

GOOD = """
from tfopt.config import Experiment
from tfopt.data import Digits
from tfopt.export import Float32
from tfopt.models import SmallCNN
from tfopt.stages import EMA, Bits, Features, Prune, Quantize, Stage, Teacher, Teachers

def helped(noise):
    return Digits()

def get_config():
    return Experiment(name="mine", data=Digits(), model=SmallCNN(),
                      stages=[Stage(), Prune(teacher=Teacher()), Quantize()])
"""
FLAGS = [
    ("--config.stages[1].sparcity=0.9", "config.stages[1] has no field 'sparcity'; did you mean"),
    ("--config.stages[7].sparsity=0.9", "config.stages: expected an index below 3, received '7'"),
    ("--config.stages[1].sparsity=much", "sparsity: expected a number, received 'much'"),
    ("--config.stages[0].epochs=2.5", "epochs: expected a whole number, received '2.5'"),
    (
        "--config.stages[1].sparsity=1.2",
        "config.stages[1].sparsity: expected a number above 0 and below 1, received 1.2",
    ),
    (
        "--config.stages[1].teacher.stage=trian",
        "config.stages[1].teacher.stage: expected the name of an earlier stage, "
        "received 'trian'; did you mean 'train'?",
    ),
    ("--config.stages[1].name=teachers", "no folder of the workdir has, received 'teachers'"),
    ("--config.stages[1].name=train", "config.stages[1].name: expected a name of letters"),
    ("--config.mesh.model=2", "expected strategy 'mesh' for one of 2 devices, received 'auto'"),
    ("--config.strategy=mirorred", "received 'mirorred'; did you mean 'mirrored'?"),
    ("--config.deterministic=maybe", "expected True or False, received 'maybe'"),
    ("--config.stages[0].learning_rate=inf", "learning_rate: expected a number, received inf"),
    ("--config.stages[0].learning_rate=nan", "learning_rate: expected a number above 0, received"),
    ("--config.stages[1].teacher=train", "[1].teacher: expected none or one field of it on the"),
    ("--config.stages[0].average=EMA", "received 'EMA'; set it to EMA() or SWA() in a config file"),
    ("--config.stages[0].average.decay=0.9", "config.stages[0].average is None and has no field"),
    ("--config.stages[0].teacher.stage=a", "set it to Teacher() or Teachers() in a config file"),
    (
        "--config.stages.prune.growth.end=0.3",
        "expected a number in brackets, received 'prune'; write --config.stages[1].growth.end.",
    ),
    ("--config.stages.prne=1", "received 'prne'; it has: train [0], prune [1], quantize [2]."),
    ("--config.model=ResNet", "config.model: expected one field of it on the command line"),
    ("--config.stages=3", "as in --config.stages[0].FIELD=VALUE"),
    (
        "--config.epochs=3",
        "config has no field 'epochs'; it has: batch_size, budget,",
    ),
    ("--wrkdir=x", "there is no flag --wrkdir; did you mean 'workdir'?"),
    ("--workdir", "Missing value for flag --workdir"),
    ("stray", "expected flags like --config=digits, received 'stray'"),
]
FILES = [
    (
        "Prune(teacher=Teacher())",
        "Stage(name='again', epochs=0, teacher=Teacher())",
        "config.stages[1].teacher: expected a stage of at least one epoch, received 'again' of 0",
    ),
    (
        "teacher=Teacher()",
        "teacher=Teachers(members=(Teacher(), Teacher(stage='trian')))",
        "config.stages[1].teacher.members[1].stage: expected the name of an earlier stage",
    ),
    (
        "Teacher()",
        "Teacher(cached=True, objective=Features())",
        "teacher.cached: expected False where hidden layers are compared: only logits are kept",
    ),
    (
        "Teacher()",
        "Teacher(model='teacher.h5')",
        "teacher.model: expected an object with load(), such as models.Saved(path=FILE), ",
    ),
    ("Prune(", "Prune(sparcity=0.9, ", "Prune has no field 'sparcity'; did you mean 'sparsity'?"),
    (
        "Prune(",
        "Prune(sparsity=80, ",
        "sparsity: expected a number above 0 and below 1, received 80; write 0.8.",
    ),
    (
        "Prune(",
        "Prune(exclude='stem', ",
        "exclude: expected a tuple of anything, received 'stem'; write ('stem',).",
    ),
    ("Stage()", "Stage(epochs='3')", "config.stages[0].epochs: expected a whole number, received"),
    (
        "Prune(",
        "Prune(sparsity=True, ",
        "config.stages[1].sparsity: expected a number or None, received",
    ),
    (
        "Stage(), Prune(teacher=Teacher()), Quantize()",
        "Stage(), Quantize(), Prune()",
        "config.stages[2]: expected no stage after quantization, received 'prune' after 'quantize'",
    ),
    (
        "stages=[",
        "variants=[Float32()], stages=[",
        "received 'float32' with stage 'quantize'; use Int8()",
    ),
    (
        "[Stage(), Prune(teacher=Teacher()), Quantize()]",
        "[]",
        "config.stages: expected at least one",
    ),
    ("stages=[", "stages=[3, ", "config.stages[0]: expected an object with prepare(), received 3"),
    ("Stage()", "Stage", "config.stages[0]: expected an object, received the class Stage; write"),
    ("SmallCNN(),", "SmallCNN,", "config.model: expected an object, received the class SmallCNN"),
    (
        "Stage()",
        "Stage(teacher='train')",
        "config.stages[0].teacher: expected Teacher or Teachers or None, received 'train'",
    ),
    (
        "Quantize()",
        "Quantize(layers=('logits',))",
        "layers: expected a tuple of Bits or Float, received ('logits',)",
    ),
    ("Stage()", "Stage(1)", "Stage: expected each field by its name, received 1 without one; it"),
    ("Stage()", "Stage(average=EMA)", "config.stages[0].average: expected an object, received the"),
    (
        "Quantize()",
        "Quantize(layers=(Bits(layers=()),))",
        "layers[0].layers: expected at least",
    ),
    ("SmallCNN(),", "3,", "config.model: expected Callable, received 3"),
    (
        "stages=[",
        "variants=['int8'], stages=[",
        "config.variants[0]: expected an object with convert(), received 'int8'",
    ),
    (
        "Prune(",
        "Prune(growth='poly', ",
        "config.stages[1].growth: expected Polynomial() or AtOnce() or an object with over(), "
        "received 'poly'",
    ),
    (
        "Stage()",
        "Stage(optimizer='adam')",
        "config.stages[0].optimizer: expected SGD() or Adam() or AdamW() or an object with "
        "build(), received 'adam'",
    ),
    (
        "Stage()",
        "Stage(schedule=0.1)",
        "config.stages[0].schedule: expected Constant() or Cosine() or an object with over(), "
        "received 0.1",
    ),
    ("data=Digits()", "data=3", "config.data: expected an object with load(batch_size)"),
    ("return Experiment", "return dict", "expected get_config() to return an Experiment"),
    ("import Digits", "import Digit", "mine.py:3: cannot import name 'Digit' from 'tfopt.data' ("),
    ("import Digits", "import Digit", "did you mean 'Digits'?"),
    ("Stage()", "Stge()", "mine.py:13: name 'Stge' is not defined; did you mean 'Stage'?"),
    ("Digits()", "Digits().laod", "mine.py:12: 'Digits' object has no attribute 'laod'; did you"),
    ("Digits()", "helped(noize=1)", "unexpected keyword argument 'noize'; did you mean 'noise'?"),
    ("Prune(", "Prune(sparcity=0.9, ", "mine.py:13: Prune has no field 'sparcity'; did you"),
    ("return E", "return = E", "mine.py:12: invalid syntax"),
]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def refusal(*arguments):
    with pytest.raises(ConfigError) as caught:
        parse([str(argument) for argument in arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("flag", "message"), FLAGS)
def test_a_wrong_flag(config, flag, message):
    assert message in refusal(f"--config={config}", flag)


@pytest.mark.parametrize(("old", "new", "message"), FILES)
def test_a_wrong_config_file(config, old, new, message):
    config.write_text(GOOD.replace(old, new))
    assert message in refusal(f"--config={config}")


def test_a_batch_that_does_not_divide_over_the_replicas(config):
    message = refusal(f"--config={config}", "--config.batch_size=33", "--config.replicas=2")
    assert "expected a multiple of the 2 replicas, received 33; the nearest is 32" in message


def test_a_data_set_may_be_any_object_with_load(config):
    text = GOOD.replace("def get_config", "class Mine:\n    load = print\n\ndef get_config")
    config.write_text(text.replace("Digits()", "Mine()"))
    experiment, _ = parse([f"--config={config}"])
    assert json.loads(json.dumps(experiment.to_json()))["data"] == {"type": "tfopt_config.Mine"}


def test_an_unknown_config_names_the_nearest():
    assert "did you mean 'digits'?" in refusal("--config=digit")


def test_overrides_reach_every_depth(config):
    flags = ["stages[1].growth.end=0.5", "stages[1].exclude=('a',)", "stages[1].teacher=None"]
    experiment, workdir = parse(
        [f"--config={config}", "--workdir=w", *(f"--config.{flag}" for flag in flags)]
    )
    prune = experiment.stages[1]
    assert (prune.growth.end, prune.exclude, prune.teacher) == (0.5, ("a",), None)
    assert workdir == Path("w").absolute()


def test_no_flag_at_all_means_the_digits_run():
    experiment, workdir = parse([])
    assert (experiment.name, workdir) == ("digits", Path("runs/digits").absolute())


def test_its_version_is_told_without_tensorflow():
    assert answered("--version") == (0, f"tfopt {tfopt.__version__}", "", "LIGHT")


def test_help_lists_configs_and_tools_without_tensorflow():
    code, out, err, loaded = answered("--help")
    assert (code, err, loaded) == (0, "", "LIGHT")
    assert "cifar10_resnet50, cifar10_resnet8, digits, image_folder" in out
    assert any(line.startswith("  inspect ") for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.stages[1].sparsity=1.2"], "expected a number above 0 and below 1"),
        (["--config.stages[1].sparcity=0.9"], "did you mean 'sparsity'?"),
        (["--config=digit"], "did you mean 'digits'?"),
        (["--conf=digits"], "there is no flag --conf; did you mean 'config'?"),
        (["inspct"], "there is no tool 'inspct'; did you mean 'inspect'?"),
        (["--config=image_folder"], "config.data.path: expected a folder with train and test"),
    ],
)
def test_main_says_it_in_one_line_and_exits_with_2(arguments, message):
    code, out, err, loaded = answered(*arguments)
    assert (code, out, loaded) == (2, "", "LIGHT")
    assert message in err
    assert err.count("\n") == 1


def test_a_workdir_that_is_a_file_is_refused_before_tensorflow_loads(tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err, loaded = answered(f"--workdir={tmp_path / 'file'}")
    assert (code, loaded) == (2, "LIGHT")
    assert "expected a folder that can be written" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_an_edited_model_is_another_experiment_and_a_comment_is_not(config):
    first = parse([f"--config={config}"])[0].to_json()
    config.write_text("# a comment\n" + GOOD)
    assert parse([f"--config={config}"])[0].to_json() == first
    config.write_text(GOOD.replace("SmallCNN()", "lambda data: SmallCNN(units=8)(data)"))
    edited = parse([f"--config={config}"])[0].to_json()
    config.write_text(GOOD.replace("SmallCNN()", "lambda data: SmallCNN(units=9)(data)"))
    assert parse([f"--config={config}"])[0].to_json() != edited


def test_a_config_may_import_what_lies_beside_it(config):
    config.with_name("my_own_model.py").write_text("from tfopt.models import MLP as Mine")
    text = GOOD.replace("from tfopt.models import SmallCNN", "from my_own_model import Mine")
    config.write_text(text.replace("SmallCNN()", "Mine()"))
    assert type(parse([f"--config={config}"])[0].model).__name__ == "MLP"


@pytest.mark.parametrize("flag", ["--config.name=mine", "--workdir="])
def test_the_default_workdir_follows_the_name(flag):
    experiment, workdir = parse([flag])
    assert workdir == Path("runs", experiment.name).absolute()


@pytest.mark.parametrize("name", ["artifacts", "tensorboard", "wandb"])
def test_a_stage_is_not_named_as_a_folder_of_the_workdir(name):
    assert "config.stages[0].name: expected" in refusal(f"--config.stages[0].name={name}")
