import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfopt.compat import tf
from tfopt.config_file import load_config

TINY = Path(__file__).parent / "tiny.py"
FLAGS = f"--config={TINY}", "--config.deterministic=true"


@pytest.fixture
def experiment(monkeypatch):
    # It is for the whole process, and other tests draw without a seed.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    tiny = load_config(str(TINY))
    tiny.deterministic = True
    return tiny


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """The one whole run, which goes on beside the tests until `tiny_run` waits for it."""
    folder = tmp_path_factory.mktemp("tiny")
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tfopt", *FLAGS, f"--workdir={folder / 'run'}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield process, folder
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def tiny_run(started):
    """The rows, the workdir and the output of one whole run without interruption."""
    process, folder = started
    output = folder / "output"
    assert process.wait(timeout=300) == 0, output.read_text()[-2000:]
    rows = json.loads((folder / "run" / "report.json").read_text())["rows"]
    return rows, folder / "run", output.read_text()
