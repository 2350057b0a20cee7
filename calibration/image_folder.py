"""Opens a folder of images, `train/<class>/<image>` and `val/` or `validation/`; reads no image yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.dataset import DataSource, Split
from calibration.errors import DataError
from calibration.preprocess import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

TRAIN = ("train", "training")
VAL = ("val", "validation")
#: Left by operating systems. Every other file in a class folder is taken for an image, and named if it is none.
IGNORED = ("Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class FileImages:
    """Image files."""

    paths: tuple[Path, ...]

    def image(self, position: int) -> Image:
        return read_image(self.paths[position])

    def content(self, position: int) -> bytes:
        try:
            return self.paths[position].read_bytes()
        except OSError as error:
            raise DataError(f"{self.paths[position]} cannot be read: {error.strerror}") from None


def load(root: Path) -> DataSource:
    """Classes are the sorted folder names of the training split, as torchvision and timm number them.

    Raises:
        DataError: a split folder is missing, an empty class or split, classes that differ between the splits.
    """
    train, val = _split_folder(root, TRAIN), _split_folder(root, VAL)
    classes = _classes(train)
    strange = sorted(set(_classes(val)) - set(classes))
    if strange:
        raise DataError(
            f"{val} has {len(strange)} classes that {train} does not have ({', '.join(strange[:5])}): "
            "both splits need the same class folders"
        )
    return DataSource(root.name or str(root), classes, _split(root, train, classes), _split(root, val, classes))


def _split_folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = sorted(p.name for p in root.iterdir())[:8]
    raise DataError(
        f"{root} has no folder {' or '.join(names)}: it holds {', '.join(found) or 'nothing'}. "
        "Expected: train/<class>/<image> and val/<class>/<image>"
    )


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _split(root: Path, folder: Path, classes: tuple[str, ...]) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = [p for p in sorted((folder / name).rglob("*")) if p.is_file() and _is_meant(p)]
        paths += files
        labels += [label] * len(files)
    ids = tuple(p.relative_to(root).as_posix() for p in paths)
    return Split(folder.name, np.array(labels, dtype=np.int64), ids, FileImages(tuple(paths)), np.arange(len(paths)))


def _is_meant(path: Path) -> bool:
    return not path.name.startswith(".") and path.name not in IGNORED
