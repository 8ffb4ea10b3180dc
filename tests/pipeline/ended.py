"""Run tfopt with argv[2:] and end this process the way that argv[1] says.

`full=BYTES`: no file may grow past BYTES, which fails as a full disk does. `kill=PATH`:
SIGKILL at the moment when the file or folder that ends in PATH is written and not yet named.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from tfopt.main import main

way, _, value = sys.argv[1].partition("=")
rename = Path.replace


def killed_rename(path, target):
    if str(target).endswith(value):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)


if way == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), resource.RLIM_INFINITY))
else:
    Path.replace = killed_rename
sys.exit(main(sys.argv[2:]))
