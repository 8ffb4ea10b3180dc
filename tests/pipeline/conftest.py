import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfopt.command_line import load_config
from tfopt.pipeline import run

TINY = Path(__file__).parent / "tiny.py"


def command(workdir, *flags):
    return [
        sys.executable,
        *("-m", "tfopt", f"--config={TINY}", f"--workdir={workdir}"),
        "--config.deterministic=true",
        *flags,
    ]


def finished(workdir, *flags):
    return subprocess.run(command(workdir, *flags), capture_output=True, text=True, check=False)


@pytest.fixture
def experiment():
    return load_config(str(TINY))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The rows and the workdir of one whole run."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    rows = run(load_config(str(TINY)), workdir)
    return json.loads(json.dumps(rows)), workdir
