"""The README's example runs as it stands there."""

import re
from pathlib import Path

import pytest

from tfopt.config_file import load_config
from tfopt.pipeline import run
from tfopt.testing import check_data, check_model, check_stage

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    code = re.search(r"```python\n(# my_config\.py\n.*?)```", README.read_text(), re.DOTALL)[1]
    path = tmp_path_factory.mktemp("readme") / "my_config.py"
    path.write_text(code)
    return load_config(str(path))


def test_the_example_keeps_the_contract(experiment):
    splits = check_data(experiment.data)
    check_model(experiment.model, spec=splits.spec)
    check_stage(experiment.stages[1])


def test_the_example_runs_to_proven_artifacts(experiment, tmp_path):
    rows = run(experiment, tmp_path)
    assert [row["variant"] for row in rows] == ["float32", "float16", "dynamic", "int8"] * 2
    assert all(row["accuracy"] > 0.8 for row in rows)
