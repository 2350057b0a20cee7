"""Data sets: splits, streams, their encoded images and digests; and the error of images that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


DIGITS = "digits"


class Images(Protocol):
    """Images by position; picklable, so that loader processes can have it."""

    def image(self, position: int) -> Image:
        """Upright RGB.

        Raises:
            DataError: it cannot be read.
        """
        ...

    def content(self, position: int) -> bytes:
        """What decides the pixels: the bytes of the file, or the pixels themselves."""
        ...


@dataclass(frozen=True)
class Split:
    """Labelled images in a fixed order.

    Attributes:
        labels: int64 [N].
        ids: a name for each image that a person can find it by, the same on every machine.
        positions: int64 [N], of the images in `images`.
    """

    name: str
    labels: np.ndarray
    ids: tuple[str, ...]
    images: Images
    positions: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.ids) == len(self.positions):
            raise ValueError(f"{len(self.labels)} labels, {len(self.ids)} ids, {len(self.positions)} positions")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image:
        return self.images.image(int(self.positions[index]))

    def content_digest(self, index: int) -> str:
        """Hex sha256 of one image."""
        return hashlib.sha256(self.images.content(int(self.positions[index]))).hexdigest()

    def digest(self) -> str:
        """Hex sha256 over ids, labels and the content of every image, in order; read once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        total = hashlib.sha256()
        for index, name in enumerate(self.ids):
            total.update(f"{name}\0{int(self.labels[index])}\0{self.content_digest(index)}\n".encode())
        return total.hexdigest()

    def without(self, indices: Collection[int]) -> Split:
        """The same split without the images at `indices`."""
        dropped = set(indices)
        keep = [i for i in range(len(self)) if i not in dropped]
        return replace(
            self, labels=self.labels[keep], ids=tuple(self.ids[i] for i in keep), positions=self.positions[keep]
        )


class Encoded(NamedTuple):
    """One image of a stream as it travels: the bytes of its file."""

    content: bytes
    label: int
    id: str


class Feed(Protocol):
    """Images that can only be read one after the other, again and again."""

    def one_pass(self, seed: int, epoch: int, shard: tuple[int, int]) -> Iterator[Encoded]:
        """All images of a process in a shuffled order that depends on these arguments alone.

        Args:
            shard: rank of the process and number of processes; together they see every image once.

        Raises:
            DataError: it cannot be read on.
        """
        ...

    def identity(self) -> str:
        """What names this content and no other, as far as can be told without reading it."""
        ...


@dataclass(frozen=True)
class Stream:
    """A training split that is read, not indexed: larger than the disk, or somewhere else.

    Attributes:
        images: of one epoch, as declared; its length.
        pool: class-balanced images from the beginning of it, kept on disk: what calibration and checks look at.
        skip_bad: leave out images that cannot be decoded instead of stopping.
    """

    name: str
    images: int
    classes: int
    feed: Feed
    pool: Split
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.images < 1:
            raise DataError(f"the split {self.name} is declared to have {self.images} images")

    def __len__(self) -> int:
        return self.images

    def digest(self) -> str:
        """Hex sha256 over what the stream is called, how long it is and the content of its pool; not over all of it."""
        return hashlib.sha256(f"{self.feed.identity()}\0{self.images}\0{self.pool.digest()}".encode()).hexdigest()

    def encoded(self, seed: int, epoch: int, shard: tuple[int, int]) -> Iterator[Encoded]:
        """The images of one process, endlessly: a process whose part is short begins it anew.

        Raises:
            DataError: nothing comes, or a label without a class.
        """
        while True:
            count = 0
            for sample in self.feed.one_pass(seed, epoch, shard):
                if not 0 <= sample.label < self.classes:
                    raise DataError(
                        f"{sample.id} has label {sample.label}, and there are {self.classes} classes: repair the set"
                    )
                count += 1
                yield sample
            if not count:
                raise DataError(f"the split {self.name} gave no image to process {shard[0]} of {shard[1]}")


@dataclass(frozen=True)
class DataSource:
    """Both splits of a data set; `classes` are the names in label order.

    Raises:
        DataError: from the constructor, a split or a class without images, a label without a class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Stream
    val: Split

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(
                f"{self.name} has {len(self.classes)} class ({', '.join(self.classes)}): at least 2 are needed"
            )
        for split in (self.pool, self.val):
            if not len(split):
                raise DataError(f"{self.name}: the split {split.name} has no images")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"{self.name}: the labels of {split.name} go from {low} to {high}, and there are "
                    f"{len(self.classes)} classes: take a data set whose {split.name} split has labels"
                )
            if split is not self.train and split is not self.val:
                continue  # the pool of a stream need not have seen every class
            seen = set(split.labels.tolist())
            empty = [name for label, name in enumerate(self.classes) if label not in seen]
            if empty:
                raise DataError(
                    f"{self.name}: {len(empty)} of {len(self.classes)} classes have no image in {split.name} "
                    f"({', '.join(empty[:5])}): add images, or remove these classes from both splits"
                )

    @property
    def pool(self) -> Split:
        """Training images that can be had by position: all of them, or those that are kept of a stream."""
        return self.train.pool if isinstance(self.train, Stream) else self.train


class DataError(Exception):
    """Data that cannot be used: what was found, and what to do next."""
