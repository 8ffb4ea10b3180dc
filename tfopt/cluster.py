"""The hosts of a run on several: what TF_CONFIG says, and whether all of them are there."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tfopt.errors import ConfigError

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")
_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Cluster:
    """The addresses `host:port` of all workers, the chief first, and which one this process is."""

    addresses: tuple[str, ...]
    index: int

    @property
    def are_several(self) -> bool:
        """Whether there is another worker than this one."""
        return len(self.addresses) > 1

    def gather(self, timeout: float) -> None:
        """Return when every worker can be reached; raise ConfigError after `timeout` seconds.

        TensorFlow's own start waits for five minutes or longer, and then says which barrier of
        its failed and not which host is missing.
        """
        deadline = time.monotonic() + timeout
        with self._listening():
            others = [index for index in range(len(self.addresses)) if index != self.index]
            with ThreadPoolExecutor(len(others) or 1) as pool:
                asked = [self.addresses[index] for index in others]
                found = pool.map(lambda each: answers(each, deadline - time.monotonic()), asked)
                missing = [index for index, there in zip(others, found, strict=True) if not there]
            if missing:
                raise ConfigError(self._missing(missing, timeout))

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Answer at this worker's port, as TensorFlow will."""
        port = int(self.addresses[self.index].rpartition(":")[2])
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("", port))
            except OSError as error:
                raise ConfigError(
                    f"TF_CONFIG: expected a free port for worker {self.index}, received "
                    f"{self.addresses[self.index]}, which can't be listened at ({error.strerror}); "
                    "end the process that has it, or give the worker another port."
                ) from error
            server.listen(len(self.addresses))
            yield

    def _missing(self, others: list[int], timeout: float) -> str:
        names = ", ".join(f"worker {other} at {self.addresses[other]}" for other in others)
        return (
            f"TF_CONFIG: expected all {len(self.addresses)} workers within {timeout:g} seconds, "
            f"received no answer of {names}; start the same command there and see that the ports "
            "are open, or give config.cluster_timeout more seconds."
        )


def described() -> Cluster | None:
    """Return the cluster that the environment's TF_CONFIG describes, None where it names none.

    Raises ConfigError where it can't be understood.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"TF_CONFIG: expected JSON, received {_short(text)} ({error}); write it as {_EXAMPLE}, "
            "or unset it."
        ) from error
    jobs = found.get("cluster") if isinstance(found, dict) else None
    if found == {} or jobs == {}:
        return None
    return _cluster(found, _checked_jobs(jobs, text))


def _checked_jobs(jobs: Any, text: str) -> dict[str, list[str]]:
    lists = isinstance(jobs, dict) and all(isinstance(each, list) for each in jobs.values())
    if not lists or not any(jobs.values()):
        raise ConfigError(
            f"TF_CONFIG: expected a cluster with its lists of workers, received {_short(text)}; "
            f"write it as {_EXAMPLE}."
        )
    if other := sorted(set(jobs) - set(_JOBS)):
        raise ConfigError(
            f"TF_CONFIG: expected a cluster of workers and at most one chief, received a job "
            f"{other[0]!r}; leave it out, as all workers train alike."
        )
    return {job: addresses for job, addresses in jobs.items() if addresses}


def _cluster(found: dict, jobs: dict[str, list[str]]) -> Cluster:
    addresses = [address for job in _JOBS for address in jobs.get(job, [])]
    for address in addresses:
        port = address.rpartition(":")[2] if isinstance(address, str) else ""
        if not port.isdigit() or not 0 < int(port) < 2**16:
            raise ConfigError(
                f"TF_CONFIG: expected addresses as 'host0:12345', received {address!r}; give every "
                "worker a host and a port."
            )
    if twice := [address for address in addresses if addresses.count(address) > 1]:
        raise ConfigError(
            f"TF_CONFIG: expected an address of its own for each worker, received {twice[0]!r} "
            "twice; give one of them another port."
        )
    task = found.get("task")
    job, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    count = len(jobs.get(job, [])) if isinstance(job, str) else 0
    if not isinstance(index, int) or not 0 <= index < count:
        sizes = " or ".join(f"{name} from 0 to {len(each) - 1}" for name, each in jobs.items())
        received = f"{job} {index}" if isinstance(task, dict) else "none"
        raise ConfigError(
            f"TF_CONFIG: expected a task {sizes}, received {received}; give each host its own "
            "index, and all of them the same cluster."
        )
    return Cluster(tuple(addresses), index + (len(jobs.get("chief", [])) if job == "worker" else 0))


def answers(address: str, timeout: float) -> bool:
    """Return whether anybody listens at `address`, host:port, within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := _answers(address)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return found


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):  # a port that is no number
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
