"""Open the data that `--data` names: digits, a folder of class folders, shards, or a reader of timm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration import hf_stream, hub, webdataset
from calibration.dataset import DIGITS, DataError, DataSource, Split
from calibration.preprocess import read_image

if TYPE_CHECKING:
    from PIL.Image import Image


SPLIT_SEED = 0
VAL_IMAGES = 360  # a fifth of 1,797
BORDER = 1  # strokes touch the edge, and a model's evaluation crop keeps only 90 % of the image
SIDE = 80  # (8 + 2) * 8: fine enough for random crops to move by less than one of the original pixels


def open_data(spec: str) -> DataSource:
    """The data set of a name.

    Args:
        spec: `digits`; a folder with `train/` and `val/` (or `validation/`), of class folders or WebDataset shards; or
            a timm name such as `hfds/user/name`, `wds/https://...`, `hfids/user/name`: the last two are streams.

    Raises:
        DataError: none of these, or a layout that cannot be used; names what was found.
    """
    check_spec(spec)
    if spec == DIGITS:
        return _digits()
    path = Path(spec)
    if path.is_dir():
        return webdataset.load_folder(path) if webdataset.holds_shards(path) else load(path)
    if spec.lower().startswith(webdataset.PREFIX):
        return webdataset.load(spec)
    if spec.lower().startswith(hf_stream.PREFIX):
        return hf_stream.load(spec)
    return hub.load(spec)


def check_spec(spec: str) -> None:
    """Return if `open_data` knows what kind of data that is; nothing is read or downloaded.

    Raises:
        DataError: it is no folder and no name of a data set.
    """
    path, name = Path(spec), spec.lower()
    if spec == DIGITS or path.is_dir() or name.startswith((webdataset.PREFIX, hf_stream.PREFIX)):
        return
    if name.startswith(hub.PREFIXES + hub.STREAMS) and not path.exists():
        return
    what = "is a file" if path.is_file() else "does not exist"
    raise DataError(
        f"--data {spec} {what}: give {DIGITS}, a folder with train/ and val/ that hold one folder per class, "
        f"or a timm data set name ({', '.join((*hub.PREFIXES, webdataset.PREFIX, hf_stream.PREFIX))})"
    )


@dataclass(frozen=True)
class DigitImages:
    """uint8 [N, 8, 8], white on black."""

    pixels: np.ndarray

    def image(self, position: int) -> Image:
        from PIL import Image

        framed = np.pad(self.pixels[position], BORDER)
        return Image.fromarray(framed).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")

    def content(self, position: int) -> bytes:
        return self.pixels[position].tobytes()


def _digits() -> DataSource:
    """scikit-learn's 1,797 real handwritten digits: 1,437 training and 360 validation images, stratified by class.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part),
    8 x 8 counts from 0 to 16.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = DigitImages(np.rint(data.images * (255 / 16)).astype(np.uint8))
    labels = data.target.astype(np.int64)
    train, val = train_test_split(
        np.arange(len(labels)), test_size=VAL_IMAGES, random_state=SPLIT_SEED, stratify=labels
    )

    def split(name: str, positions: np.ndarray) -> Split:
        ordered = np.sort(positions)
        return Split(name, labels[ordered], tuple(f"digit-{p:04d}" for p in ordered), images, ordered)

    return DataSource(DIGITS, tuple(map(str, data.target_names)), split("train", train), split("val", val))


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
        found = (p for p in sorted((folder / name).rglob("*")) if p.is_file() and p.name not in IGNORED)
        files = [p for p in found if not p.name.startswith(".")]
        paths += files
        labels += [label] * len(files)
    ids = tuple(p.relative_to(root).as_posix() for p in paths)
    return Split(folder.name, np.array(labels, dtype=np.int64), ids, FileImages(tuple(paths)), np.arange(len(paths)))
