"""`tfopt` as one of several hosts; who isn't the chief must not write to argv[1], the workdir."""

import json
import os
import sys
from pathlib import Path

from tfopt.main import main

workdir, *flags = sys.argv[1:]
_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def watch(event, args):
    writes = event in _WRITES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
    places = [Path(os.fsdecode(arg)) for arg in args if isinstance(arg, (str, bytes, os.PathLike))]
    if writes and any(Path(workdir) in place.parents for place in places):
        print(f"WROTE {event} {places[0]}", flush=True)


if json.loads(os.environ["TF_CONFIG"])["task"]["index"]:
    sys.addaudithook(watch)
sys.exit(main([*flags, f"--workdir={workdir}"]))
