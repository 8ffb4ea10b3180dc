"""What the artifacts of a stage answered on the test split, and its Keras model, on disk."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfopt.checkpoint import write_atomically

# No variant has this name, see config.py.
KERAS = "keras"


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits, (n, classes), and labels, (n,), in the order of the test split."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of examples whose highest logit is the label's; NaN is no logit."""
        right = self.logits.argmax(-1) == self.labels
        return float(np.mean(right & np.isfinite(self.logits).all(-1)))

    def write(self, folder: Path, who: str) -> None:
        """Write them to the `folder` of a stage as those of `who`: a variant, or KERAS."""
        content = io.BytesIO()
        np.savez_compressed(content, logits=self.logits.astype(np.float32), labels=self.labels)
        write_atomically(_path(folder, who), content.getvalue())


def read(folder: Path, who: str) -> Answers | None:
    """Return what `write` wrote for `who`, None where it is missing."""
    path = _path(folder, who)
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return Answers(arrays["logits"], arrays["labels"])


def keep_only(folder: Path, variants: Iterable[str]) -> None:
    """Remove from the `folder` of a stage the answers of other variants."""
    kept = {_path(folder, who).name for who in (KERAS, *variants)}
    for path in _path(folder, KERAS).parent.glob("*.npz"):
        if path.name not in kept:
            path.unlink()


def _path(folder: Path, who: str) -> Path:
    return folder / "answers" / f"{who}.npz"
