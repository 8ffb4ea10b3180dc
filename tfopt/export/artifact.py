"""The bytes of a .tflite file."""

from dataclasses import dataclass
from pathlib import Path

from tfopt.checkpoint import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The bytes of one .tflite file, and of which stage and variant they are."""

    stage: str
    variant: str
    content: bytes

    @classmethod
    def of(cls, path: Path, content: bytes) -> "Artifact":
        """Return the artifact of `content`, which a file of any origin at `path` holds."""
        stage, _, variant = path.stem.rpartition("_")
        return cls(stage=stage, variant=variant, content=content)

    @property
    def name(self) -> str:
        """`stage_variant`, also the file's name without the suffix."""
        return f"{self.stage}_{self.variant}" if self.stage else self.variant

    def write(self, folder: Path) -> Path:
        """Write the bytes to `folder`, whole or not at all, and return the file's path."""
        path = folder / f"{self.name}.tflite"
        write_atomically(path, self.content)
        return path
