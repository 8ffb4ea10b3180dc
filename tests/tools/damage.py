"""Ways to damage a .tflite, drawn by a seed, and what a damaged one may do to a process."""

import os
import resource
import sys
import time
import wave

import numpy as np


def crash(path):
    os.abort()


def stall(path):
    time.sleep(60)


def fail(path):
    print("a first line\nno such thing", file=sys.stderr)
    sys.exit(1)


def sounds(path):
    return wave.__file__


def limit(path):
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def fill(path):
    return len(bytes(2**40))


def pid(path):
    print("what a library prints is no answer")
    return os.getpid()


def damaged(content, seed):
    """`content` with one or a few wounds of one kind."""
    rng = np.random.default_rng(seed)
    kinds = (_flipped, _cut, _spliced, _pointed, _overwritten, _nudged)
    return kinds[seed // 3 % len(kinds)](content, rng)


def _place(content, rng):
    # As often in what says how to read the rest, which is little, as anywhere.
    return int(rng.integers(len(content) if rng.random() < 0.5 else min(3000, len(content))))


def _flipped(content, rng):
    made = bytearray(content)
    for _ in range(rng.integers(1, 20)):
        made[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(made)


def _cut(content, rng):
    return content[: _place(content, rng)]


def _spliced(content, rng):
    at, taken, size = _place(content, rng), _place(content, rng), int(rng.integers(1, 200))
    dropped = int(rng.choice([0, size, rng.integers(200)]))
    return content[:at] + content[taken : taken + size] + content[at + dropped :]


def _pointed(content, rng):
    """With other offsets, lengths or shapes: most words of the front are one of these."""
    made = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = _place(content, rng) // 4 * 4
        values = (rng.integers(2**32), rng.integers(len(content)), rng.integers(64), 2**31 - 1)
        made[at : at + 4] = int(rng.choice(values)).to_bytes(4, "little")
    return bytes(made)


def _nudged(content, rng):
    """With one small number instead of another: a type, a dimension, an index, an option."""
    made = bytearray(content)
    at = _place(content, rng)
    made[at] = int(rng.choice([rng.integers(32), 255, (made[at] + 1) % 256]))
    return bytes(made)


def _overwritten(content, rng):
    at, size = _place(content, rng), int(rng.integers(1, 64))
    fill = rng.choice([b"\0", b"\xff", b"\x80", None])
    noise = bytes(fill) * size if fill else rng.bytes(size)
    return content[:at] + noise + content[at + size :]
