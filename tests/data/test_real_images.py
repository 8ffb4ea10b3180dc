import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

RUN = """
import resource, sys
from tfopt.data import Augment, ImageFolder
splits = ImageFolder(path=sys.argv[1], augment=Augment()).load(128)
assert splits.spec.shape == (32, 32, 3) and splits.spec.train_size == 45000, splits.spec
for stream in (splits.train(0).take(2 * splits.steps_per_epoch), splits.test):
    for _ in stream:
        pass
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / (2**30 if sys.platform == "darwin" else 2**20))
"""


@pytest.mark.slow
@pytest.mark.data
def test_sixty_thousand_jpegs_take_less_than_3_gb(tmp_path):
    archive = Path(os.environ.get("TFOPT_DATA", "nowhere")) / "cifar10-jpeg.tar"
    if not archive.is_file():
        pytest.skip(f"needs TFOPT_DATA to be the folder with cifar10-jpeg.tar, not {archive}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    found = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert float(found.stdout.split()[-1]) < 3
