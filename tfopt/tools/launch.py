"""Start a run as several workers on this machine, each with its TF_CONFIG."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import IO

from tfopt.errors import ConfigError

# What a worker takes at most to notice that another is gone, and to say so.
_GRACE_SECONDS = 30
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str]) -> int:
    """Run `tfopt ARGUMENTS` in every worker; return 0, or the code of the first that failed."""
    parser = argparse.ArgumentParser(
        prog="tfopt launch",
        description=__doc__,
        usage="tfopt launch --workers=2 -- --config=NAME ...",
        epilog="What comes after -- are the flags of a run. Signals are passed on to all workers.",
    )
    parser.add_argument("--workers", type=int, default=2, help="how many; the first is the chief")
    own, rest = argv, []
    if "--" in argv:
        own, rest = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    flags, strange = parser.parse_known_args(own)
    if strange:
        raise ConfigError(
            f"expected --workers and, after --, the flags of a run, received {strange[0]!r} before "
            f"--; write tfopt launch --workers={flags.workers} -- {shlex.join(strange + rest)}"
        )
    workers = flags.workers
    if workers < 1:
        raise ConfigError(f"--workers: expected at least 1, received {workers}.")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    children: list[subprocess.Popen[str]] = []
    # Before they start: a signal that this process ignores, as SIGINT in the background of a
    # shell, they would ignore too; one that it handles, they don't.
    with _signals_to(children):
        children += [_started(index, addresses, rest) for index in range(workers)]
        readers = [_prefixed(index, child) for index, child in enumerate(children)]
        code = _first_failure(children)
        for reader in readers:
            reader.join()
    return code


def _started(index: int, addresses: list[str], arguments: list[str]) -> "subprocess.Popen[str]":
    # A session of its own: a terminal's Ctrl-C would reach it twice.
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tfopt", *arguments],
        env=environment(index, addresses),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def environment(index: int, addresses: list[str]) -> dict[str, str]:
    """Return this process's environment with the TF_CONFIG of worker `index` of `addresses`."""
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return {**os.environ, "TF_CONFIG": json.dumps(task)}


def free_ports(count: int) -> list[int]:
    """Return `count` ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.socket()) for _ in range(count)]
        for server in servers:
            server.bind(("127.0.0.1", 0))
        return [server.getsockname()[1] for server in servers]


def _prefixed(index: int, child: "subprocess.Popen[str]") -> threading.Thread:
    """Print what `child` says, each line with its worker's number."""

    def read(lines: IO[str]) -> None:
        for line in lines:
            # Who reads may have enough: the run goes on, and its pipe must not fill up.
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.write(f"[worker {index}] {line}")
                sys.stdout.flush()

    assert child.stdout is not None
    thread = threading.Thread(target=read, args=(child.stdout,), daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def _signals_to(children: list["subprocess.Popen[str]"]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        for child in children:
            child.send_signal(number)  # which does nothing to one that has ended

    # `nohup` has it ignored, so that the run outlives its terminal.
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    heard = [number for number in _PASSED_ON if number not in ignored]
    earlier = {number: signal.signal(number, pass_on) for number in heard}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        for child in children:
            child.kill()


def _first_failure(children: list["subprocess.Popen[str]"]) -> int:
    """Return the code of the first to fail when all have ended, 0 if none has.

    The others notice it themselves; who doesn't is ended.
    """
    ended: dict[int, int] = {}
    changed = threading.Condition()

    def wait(index: int) -> None:
        code = children[index].wait()
        with changed:
            ended[index] = code
            changed.notify()

    for index in range(len(children)):
        threading.Thread(target=wait, args=(index,), daemon=True).start()
    with changed:
        while not any(ended.values()) and len(ended) < len(children):
            changed.wait()
        code = next((code for code in ended.values() if code), 0)
        if not changed.wait_for(lambda: len(ended) == len(children), _GRACE_SECONDS):
            for child in children:
                child.kill()
    # A shell's code for what a signal has ended.
    return 128 - code if code < 0 else code
