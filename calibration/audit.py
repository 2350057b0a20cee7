"""Finds every image that cannot be read, with the reason, before training instead of in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from calibration.dataset import DataError, DataSource, Split, Stream

SHOWN = 20  # lines of the list in an error; the count is always told


@dataclass(frozen=True)
class BadImage:
    """One unreadable image of a split."""

    split: str
    index: int
    id: str
    reason: str


@dataclass(frozen=True)
class AuditReport:
    """All unreadable images of a source; `looked_at` images were decoded."""

    looked_at: int
    bad: tuple[BadImage, ...]

    def raise_if_bad(self) -> None:
        """
        Raises:
            DataError: one list of all of them.
        """
        if not self.bad:
            return
        lines = [f"  {b.id}: {b.reason}" for b in self.bad[:SHOWN]]
        if len(self.bad) > SHOWN:
            lines.append(f"  ... and {len(self.bad) - SHOWN} more")
        raise DataError(
            f"{len(self.bad)} of {self.looked_at} images cannot be used; repair or remove them, or leave them out "
            "with --skip-bad:\n" + "\n".join(lines)
        )

    def without_bad(self, source: DataSource) -> DataSource:
        """The source without them.

        Raises:
            DataError: a class or split has no image left.
        """
        train, val = (
            split.without([b.index for b in self.bad if b.split == split.name]) for split in (source.pool, source.val)
        )
        if isinstance(source.train, Stream):  # the rest of it is met in training only
            return replace(source, train=replace(source.train, pool=train, skip_bad=True), val=val)
        return replace(source, train=train, val=val)


def images_to_check(source: DataSource, val_only: bool = False) -> int:
    """How many images `audit` decodes: of a stream those that are kept on disk."""
    return len(source.val) + (0 if val_only else len(source.pool))


def audit(source: DataSource, val_only: bool = False, on_image: Callable[[], None] = lambda: None) -> AuditReport:
    """Decode every image once, with a thread for each core (decoding releases Python's lock); of a stream the pool."""
    bad: list[BadImage] = []
    looked_at = 0
    for split in (source.val,) if val_only else (source.pool, source.val):
        looked_at += len(split)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for index, reason in enumerate(pool.map(lambda i, s=split: _problem(s, i), range(len(split)))):
                on_image()
                if reason:
                    bad.append(BadImage(split.name, index, split.ids[index], reason))
    return AuditReport(looked_at, tuple(bad))


def _problem(split: Split, index: int) -> str:
    """Why an image cannot be read; empty if it can."""
    try:
        image = split.image(index)
    except DataError as error:
        return str(error)
    return "" if min(image.size) >= 1 else f"has size {image.size}"
