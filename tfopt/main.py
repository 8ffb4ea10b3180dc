"""The command line: `tfopt --config=NAME --workdir=DIR`, or `tfopt TOOL ...`."""

import atexit
import gc
import importlib
import io
import logging
import os
import pkgutil
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import tfopt
from tfopt import chatter, cluster, compat, hosts, preemption, tools
from tfopt.command_line import parse
from tfopt.config_file import shipped_configs
from tfopt.errors import ConfigError, RunError, nearest

HELP = """\
Make a Keras model small and fast, and prove what is exported.

  tfopt [--config=NAME] [--config.FIELD=VALUE ...] [--workdir=DIR]
  tfopt TOOL ...

  --config    a shipped experiment or a Python file with get_config(); default: digits
              shipped: {configs}
  --config.*  one field of it, as in '--config.stages[1].sparsity=0.9'
  --workdir   the folder for checkpoints, artifacts and the report; the same command again
              goes on where it stopped; default: runs/NAME
  --version   print it

Tools:
{tools}
"""


_AGAIN = "; the same command again goes on from here"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    That is 0, 1 (failed run), 2 (bad input), 75 (preempted: run me again) or 130 (interrupted).
    """
    compat.while_loading = chatter.left_out
    try:
        code = _answered(sys.argv[1:] if argv is None else argv)
    except Exception:
        hosts.leave(1, traceback.format_exc())
        raise
    if code:
        hosts.leave(code)
    return code


def _answered(arguments: list[str]) -> int:
    is_tool = bool(arguments) and not arguments[0].startswith("-")
    again = "" if is_tool else _AGAIN
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for terminals without a ×
    try:
        if is_tool:
            code = _tool(arguments[0])(arguments[1:])
            sys.stdout.flush()
            return code
        if "--version" in arguments:
            print(f"tfopt {tfopt.__version__}")
            return 0
        if {"--help", "-help", "-h"} & set(arguments):
            print(HELP.format(configs=", ".join(sorted(shipped_configs())), tools=_tool_lines()))
            return 0
        return _run(arguments)
    except preemption.PreemptedError:
        return _preempted()
    except (ConfigError, RunError) as error:
        if preemption.noticed() and isinstance(error, RunError):
            return _preempted()  # of several hosts another may have gone first
        print(f"tfopt: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Whoever read has enough, as `head` has; at its exit Python would flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not is_tool:
            print(f"tfopt: nobody reads its output any more{again}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"tfopt: stopped{again}.", file=sys.stderr)
        return 130


def _preempted() -> int:
    print(f"tfopt: stopped by SIGTERM{_AGAIN}.", file=sys.stderr)
    return preemption.EXIT_CODE


def _run(arguments: list[str]) -> int:
    experiment, workdir = parse(arguments)
    cluster.described()  # which raises for a TF_CONFIG that nobody can understand
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("tfopt").setLevel("INFO")
    logging.getLogger("tensorflow").setLevel("ERROR")
    # Deferred, so that help and bad input are answered at once.
    from tfopt import pipeline, report

    # Else Python looks at its exit for cycles in all of TensorFlow's graphs, for two seconds.
    atexit.register(gc.freeze)
    with preemption.listening():
        rows = pipeline.run(experiment, workdir, shlex.join(["tfopt", *arguments]))
    if not rows:
        print("done; the chief has the report.")
        return 0
    print(f"\n{report.table(rows)}\n")
    print(f"report       {workdir / 'report.html'}")
    print(f"artifacts    {workdir / 'artifacts'}")
    program = Path(sys.executable).with_name("tensorboard")  # it need not be on the PATH
    print(f"TensorBoard  {program} --logdir={workdir / 'tensorboard'}")
    return 0


def _tools() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(tools.__path__)]


def _tool(name: str) -> Any:
    if name not in _tools():
        raise ConfigError(f"there is no tool {name!r}; {nearest(name, _tools())}")
    return importlib.import_module(f"tfopt.tools.{name}").main


def _tool_lines() -> str:
    docs = {name: importlib.import_module(f"tfopt.tools.{name}").__doc__ for name in _tools()}
    return "\n".join(f"  {name:11} {(doc or '').splitlines()[0]}" for name, doc in docs.items())
