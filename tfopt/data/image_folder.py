"""Images in a folder per class."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfopt.data import disk
from tfopt.data.decode import decode, first_shape
from tfopt.data.front_end import Image
from tfopt.data.pipeline import Pair
from tfopt.data.quality import hint
from tfopt.data.source import Source
from tfopt.data.splits import Splits
from tfopt.errors import ConfigError
from tfopt.spec import bounded, spec

_LOG = logging.getLogger(__name__)
_SUFFIXES = (".jpg", ".jpeg", ".png")
_Listing = dict[str, list[Path]]


@spec
class ImageFolder(Source):
    """JPEG and PNG images at `path`, as train/<class>/<file> and test/<class>/<file>.

    A folder validation/ replaces the share `validation` where it is there. `image_size`
    (height, width) resizes every image; without it all must be of one size. The first image
    says whether all are read in grey or in RGB. Hidden files are ignored. Decoded images of
    more than `memory_limit_mb` in all are kept in `cache_dir` and read from there batch by
    batch; later runs on the same files reuse them.
    """

    path: str = ""
    image_size: tuple[int, int] | None = None
    memory_limit_mb: int = bounded(1024, least=0)
    cache_dir: str = "~/.cache/tfopt"

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) for fields that can't be."""
        yield from Source.rules(self)
        if not self.path:
            yield "path", "a folder with train and test in it, as in --config.data.path=DIR"
        else:
            # Here as well as in load, so that TensorFlow isn't waited for.
            _check_folder(Path(self.path).expanduser(), "a folder with train and test")
        if self.image_size is not None and min(self.image_size) < 1:
            yield "image_size", "a height and a width of at least 1 pixel"

    def load(self, batch_size: int) -> Splits:
        """Return the splits of the folder; raises ConfigError naming the file that is wrong."""
        root = Path(self.path).expanduser()
        _check_folder(root, "a folder with train and test")
        splits = ["train", "test", *(["validation"] if (root / "validation").is_dir() else [])]
        found = {split: _listed(root / split) for split in splits}
        for split in splits:
            _check_classes(root / split, found[split], found["train"])
        shape = first_shape(next(p for paths in found["train"].values() for p in paths))
        shape = (*(self.image_size or shape[:2]), shape[2])
        count = sum(len(paths) for listing in found.values() for paths in listing.values())
        _LOG.info("data: reading %s images.", f"{count:,}")
        on_disk = count * math.prod(shape) > self.memory_limit_mb * 2**20
        pairs = {split: self._pair(root, found[split], shape, on_disk) for split in splits}
        return self.splits(
            **pairs,
            class_names=tuple(found["train"]),
            batch_size=batch_size,
            front_end=Image(),
        )

    def _pair(self, root: Path, listing: _Listing, shape: tuple, on_disk: bool) -> Pair:
        paths = [path for files in listing.values() for path in files]
        labels = np.repeat(np.arange(len(listing)), [len(files) for files in listing.values()])
        batches = decode(paths, shape, self.image_size is not None)
        if not on_disk:
            rows = np.empty((len(paths), *shape), np.uint8)
            for start, batch in batches:
                rows[start : start + len(batch)] = batch
            return rows, labels

        def write(file: BinaryIO) -> None:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for _, batch in batches:
                file.write(batch.data)

        stamps = [disk.stamp(path, root) for path in paths]
        name = disk.key([str(shape), str(self.image_size), *stamps])
        size = len(paths) * math.prod(shape)
        return disk.mapped(Path(self.cache_dir) / f"{name}.npy", size, write), labels


def _listed(folder: Path) -> _Listing:
    _check_folder(folder, "a folder per class in it")
    classes = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    listing = {}
    for entry in classes:
        _check_folder(entry, "a folder per class")
        files = sorted(file for file in entry.iterdir() if not file.name.startswith("."))
        for file in files:
            if not file.name.lower().endswith(_SUFFIXES):
                raise ConfigError(
                    f"config.data.path: expected only {', '.join(_SUFFIXES)} files, "
                    f"received {file}; remove or convert it."
                )
        listing[entry.name] = files
    if not any(listing.values()):
        raise ConfigError(
            f"config.data.path: expected images in {folder}/<class>, received none; add some."
        )
    return listing


def _check_folder(folder: Path, expected: str) -> None:
    if folder.is_dir():
        return
    what = "a file" if folder.exists() else "no such folder"
    siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
    raise ConfigError(
        f"config.data.path: expected {expected}, received {what} at {folder}; "
        f"{hint(folder.name, set(siblings) - {folder.name})}"
    )


def _check_classes(folder: Path, found: _Listing, train: _Listing) -> None:
    for words, names in (
        ("a folder less", train.keys() - found.keys()),
        ("a folder more", found.keys() - train.keys()),
    ):
        if names:
            raise ConfigError(
                f"config.data.path: expected the {len(train)} class folders of train in {folder}, "
                f"received {words}: {', '.join(sorted(names)[:5])}; make the folders the same."
            )
