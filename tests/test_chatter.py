"""What TensorFlow says while it loads, in a process of its own, and what must be heard."""

import subprocess
import sys

SAID = """
import os, sys
from tfopt.chatter import left_out
print("before", file=sys.stderr)
with left_out():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written\\n")
    os.write(2, b"I0000 00:00:1 1 port.cc:153] oneDNN custom operations are on.\\n")
    os.write(2, b"E0000 00:00:1 1 cuda.cc:52] failed\\nW0000 00:00:1 1 gpu.cc:9] slow\\nIt0 is\\n")
    print("within", file=sys.stderr)
    {end}
print("after", file=sys.stderr)
os.write(2, b"I0000 00:00:1 1 port.cc:153] as it is\\n")
"""
HEARD = ["before", "E0000 00:00:1 1 cuda.cc:52] failed", "W0000 00:00:1 1 gpu.cc:9] slow"]


def said(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.splitlines()


def test_only_information_is_left_out_and_only_within():
    code, lines = said(SAID.format(end="pass"))
    assert code == 0
    assert lines == [*HEARD, "It0 is", "within", "after", "I0000 00:00:1 1 port.cc:153] as it is"]


def test_a_crash_is_heard():
    code, lines = said(SAID.format(end="os.write(2, b'F0000 no AVX'); os.abort()"))
    assert code == -6
    assert lines == [*HEARD, "It0 is", "within", "F0000 no AVX"]


def test_an_error_too():
    code, lines = said(SAID.format(end="raise ImportError('no TensorFlow')"))
    assert code == 1
    assert lines[:5] == [*HEARD, "It0 is", "within"]
    assert lines[-1] == "ImportError: no TensorFlow"


def test_a_closed_stderr_is_no_error():
    code = SAID.format(end="sys.exit(5)").replace("os.write(2,", "print(")
    command = ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 5


def test_tensorflow_says_nothing_while_it_is_loaded():
    code, lines = said(
        "from tfopt import chatter, compat; compat.while_loading = chatter.left_out; "
        "compat.tf.constant; import sys; sys.exit('tensorflow' in sys.modules and 3)"
    )
    assert (code, lines) == (3, [])
