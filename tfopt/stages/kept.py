"""A teacher's logits, computed once for all training examples and kept on disk."""

import contextlib
import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import hosts
from tfopt.checkpoint import renamed
from tfopt.compat import keras, tf
from tfopt.paths import is_local

_LOG = logging.getLogger(__name__)


def kept_logits(teacher: "keras.Model", splits: Any, folder: Path) -> np.ndarray:
    """Return the logits (train_size, classes), float32, that `teacher` gives `splits.in_order`.

    They are computed batch by batch into a file in `folder`, which is mapped into memory and
    found again by the teacher's weights and the data: a teacher that changed has another file.
    """
    path = folder / f"logits_{_key(teacher, splits)}.npy"
    if not all(hosts.all_say(int(path.exists()))):
        _LOG.info("teacher %s: logits of %d examples.", teacher.name, splits.spec.train_size)
        with renamed(path) if hosts.is_chief() else contextlib.nullcontext() as temporary:
            _write(temporary or Path(os.devnull), teacher, splits)
        hosts.meet()
        hosts.sees(path)
    if is_local(path):
        return np.load(path, mmap_mode="r")
    return np.load(io.BytesIO(path.read_bytes()))  # of a workdir in the cloud nothing is mapped


def _write(path: Path, teacher: "keras.Model", splits: Any) -> None:
    predict = tf.function(lambda examples: tf.cast(teacher(examples, training=False), tf.float32))
    shape = (splits.spec.train_size, teacher.output_shape[-1])
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    # Written and not mapped: a full disk under a mapping kills the process.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for examples, _, weights in splits.in_order:
            file.write(predict(examples).numpy()[weights.numpy() > 0].astype("<f4").tobytes())


def _key(teacher: Any, splits: Any) -> str:
    """Return a hash of the weights, the architecture and all examples in their order.

    It takes a pass over the data, which is little beside the epochs that train on them: two data
    sets may well begin alike.
    """
    found = hashlib.sha256(json.dumps(teacher.get_config(), default=str).encode())
    for values in teacher.get_weights():
        found.update(values.tobytes())
    for examples, _, weights in splits.in_order:
        found.update(examples.numpy()[weights.numpy() > 0].tobytes())
    return found.hexdigest()[:24]
