"""Reads WebDataset shards: tar files of images with their labels.

Format: members of one sample follow each other and share their name up to the first dot of the base name; what comes
after it says what they are (github.com/webdataset/webdataset, `base_plus_ext`). timm's reader takes the label from
`.cls`, or from a field of `.json` where `_info.json` names one.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from calibration.dataset import DataError, Split
from calibration.preprocess import read_encoded

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "pgm", "ppm", "tif", "tiff")
LABEL_KEY = "cls"


class IncompleteShard(DataError):
    """What was read is no whole tar file."""


@dataclass(frozen=True)
class PackedImages:
    """Images that lie as they are inside larger files.

    Attributes:
        files: the larger files.
        file: int32 [N], which of them holds an image.
        offset, size: int64 [N], in bytes.
        names: of the images, for messages.
    """

    files: tuple[Path, ...]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    names: tuple[str, ...]

    def image(self, position: int) -> Image:
        return read_encoded(self.content(position), self.names[position])

    def content(self, position: int) -> bytes:
        path, size = self.files[self.file[position]], int(self.size[position])
        try:
            with path.open("rb") as file:
                file.seek(int(self.offset[position]))
                content = file.read(size)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        if len(content) != size:
            raise DataError(f"{path} ends before {self.names[position]}: it was shortened since it was opened")
        return content


@dataclass
class _Sample:
    """What one sample was seen to have so far."""

    key: str
    image: tarfile.TarInfo | None = None
    content: bytes = b""
    label: bytes | None = None
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """One sample of a shard; `content` is empty where only the place of the image was wanted."""

    id: str
    label: int
    offset: int
    size: int
    content: bytes


def split_of(name: str, shards: Iterable[Path], label_field: str = "", lengths: Iterable[int] = ()) -> Split:
    """A split with random access to the images of `shards`, after one look at the headers of all members.

    Args:
        label_field: of each sample's `.json`, instead of `.cls`; samples with a negative label are left out.
        lengths: how many samples each shard has, where that is declared.

    Raises:
        DataError: not a tar file, one that is compressed, a sample without image or label, another number of samples.
    """
    paths = tuple(shards)
    declared = dict(zip(paths, lengths, strict=False))
    found: list[tuple[int, Found]] = []
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                samples = list(read_shard(file, path.name, label_field, contents=False))
        except OSError as error:
            raise DataError(f"shard {path} cannot be read: {error.strerror or error}") from None
        if declared.get(path, len(samples)) != len(samples):
            raise DataError(
                f"shard {path} has {len(samples)} samples, and {declared[path]} are declared: it is not complete, or "
                "_info.json belongs to other shards"
            )
        found += [(number, sample) for sample in samples if sample.label >= 0 or not label_field]
    ids = tuple(sample.id for _, sample in found)
    images = PackedImages(
        paths,
        np.array([number for number, _ in found], dtype=np.int32),
        np.array([sample.offset for _, sample in found], dtype=np.int64),
        np.array([sample.size for _, sample in found], dtype=np.int64),
        ids,
    )
    return Split(name, np.array([s.label for _, s in found], dtype=np.int64), ids, images, np.arange(len(found)))


def read_shard(file: BinaryIO, shard: str, label_field: str, contents: bool) -> Iterator[Found]:
    """All samples of one tar file in order, those with a negative label too.

    Args:
        contents: read the images too; `file` need not be able to seek then.

    Raises:
        IncompleteShard: the data ends in the middle of a member, or is no tar file.
        DataError: a sample without image or label.
    """
    sample: _Sample | None = None
    label_key = "json" if label_field else LABEL_KEY
    try:
        with tarfile.open(fileobj=file, mode="r|" if contents else "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, key = base.partition(".")
                if not member.isfile() or not stem or not key or (stem.startswith("__") and stem.endswith("__")):
                    continue
                name = f"{folder}/{stem}" if folder else stem
                if sample is None or sample.key != name:
                    if sample is not None:
                        yield _finished(sample, shard, label_field)
                    sample = _Sample(name)
                key = key.lower()
                if key == label_key:
                    sample.label = _read(tar, member)
                elif key not in IMAGE_KEYS:
                    sample.others.append(key)
                elif sample.image is None:
                    sample.image, sample.content = member, _read(tar, member) if contents else b""
                else:
                    raise DataError(f"shard {shard}: {name} has two images, {sample.image.name} and {member.name}")
    except tarfile.TarError as error:
        raise IncompleteShard(
            f"shard {shard} is no whole tar file ({error}): shards must be plain .tar, not compressed, and complete"
        ) from None
    if sample is not None:
        yield _finished(sample, shard, label_field)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise tarfile.ReadError(f"{member.name} has {len(content)} of {member.size} bytes")
    return content


def _finished(sample: _Sample, shard: str, label_field: str) -> Found:
    where = f"shard {shard}: {sample.key}"
    beside = f"; it has {', '.join(sample.others)}" if sample.others else ""
    if sample.image is None:
        raise DataError(f"{where} has no image ({', '.join(IMAGE_KEYS)}){beside}")
    if sample.label is None:
        raise DataError(f"{where} has no label (.{'json' if label_field else LABEL_KEY}){beside}")
    try:
        label = int(json.loads(sample.label)[label_field]) if label_field else int(sample.label)
    except (ValueError, KeyError, TypeError) as error:
        shown = sample.label[:40].decode(errors="replace")
        raise DataError(f"{where}: its label is {shown!r} ({error!r}): a whole number is needed") from None
    return Found(f"{shard}/{sample.image.name}", label, sample.image.offset_data, sample.image.size, sample.content)
