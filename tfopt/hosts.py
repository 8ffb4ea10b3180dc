"""One run on several hosts: each does the same, reads its part of the data, and one writes.

What is read of variables is reduced over all hosts, so all must read alike, in the same order;
only what goes to the disk is the chief's alone.
"""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfopt import cluster, preemption
from tfopt.compat import tf
from tfopt.errors import ConfigError, RunError

_SHOWN_SECONDS = 60  # an NFS client's longest cache of what isn't there
_LOST = (
    "Collective ops is aborted",
    "heartbeat",
    "CoordinationService",
    "Connection reset by peer",
    "Socket closed",
    "failed to connect to all addresses",
)


def is_chief() -> bool:
    """Return whether this process is the one that writes; alone it is."""
    return bool(tf.distribute.get_strategy().extended.should_checkpoint)


def are_several() -> bool:
    """Return whether the strategy in scope spans processes that each run this program."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def all_say(number: int) -> list[int]:
    """Return what every replica says, this one `number`; no host gets there before the last."""
    if not are_several():
        return [number]
    strategy = tf.distribute.get_strategy()
    said = strategy.run(lambda: tf.constant([number]))
    return strategy.gather(said, axis=0).numpy().tolist()


def meet() -> None:
    """Return when all hosts have come here."""
    all_say(0)


def sees(path: Path) -> bool:
    """Return whether `path`, which the chief has written, is there for this host too.

    A network's file system shows a new file late to a host that has looked for it before.
    """
    deadline = time.monotonic() + _SHOWN_SECONDS
    while not path.exists() and are_several() and time.monotonic() < deadline:
        time.sleep(0.2)
    return path.exists()


def fed(part: Callable[[int, int], "tf.data.Dataset"], batch_size: int) -> Any:
    """Return what the strategy in scope feeds its replicas with.

    `part(index, count)` is the stream of the rows that host `index` of `count` has of each of
    the batches, which have `batch_size` rows in all.
    """
    if not are_several():
        return part(0, 1)

    def own(context: Any) -> "tf.data.Dataset":
        rows = part(context.input_pipeline_id, context.num_input_pipelines)
        # The host's replicas take one batch after another.
        each = context.get_per_replica_batch_size(batch_size)
        local = batch_size // context.num_input_pipelines
        return rows if local == each else rows.rebatch(each, drop_remainder=True)

    return tf.distribute.get_strategy().distribute_datasets_from_function(own)


@contextlib.contextmanager
def a_lost_one_is_an_error(strategy: "tf.distribute.Strategy") -> Iterator[None]:
    """Turn what TensorFlow raises when another host is gone into a RunError that names it.

    Its coordination service needs ten seconds of silence to be sure, or a closed connection.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not any(words in str(error) for words in _LOST):
            raise
        named = set(re.findall(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)", str(error)))
        others = sorted(f"{job} {index}" for job, index in named - {_own(strategy)})
        who = ", ".join(others) or "another worker"
        raise RunError(
            f"{who} doesn't answer any more: look at its log, and start the same command on all "
            "workers again, it goes on from the last finished epoch."
        ) from error
    except RuntimeError as error:
        # A signal at the very moment, which TensorFlow's C++ reports so.
        if "REPLACED BY KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        if preemption.noticed() and "REPLACED BY" in str(error):
            raise preemption.PreemptedError from error
        raise


def leave(code: int, message: str = "") -> None:
    """End this process with `code` where it is one of several hosts and TensorFlow runs.

    At an exit in order TensorFlow waits for all hosts, and another may wait for this one in the
    middle of a step: neither would ever end.
    """
    with contextlib.suppress(ConfigError):
        found = cluster.described()
        if "tensorflow" in sys.modules and found and found.are_several:
            sys.stdout.flush()
            sys.stderr.write(message)
            sys.stderr.flush()
            os._exit(code)


def _own(strategy: Any) -> tuple[str, str]:
    resolver = strategy.cluster_resolver
    return (resolver.task_type, str(resolver.task_id)) if resolver else ("", "")
