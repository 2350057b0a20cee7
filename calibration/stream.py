"""Streams of training images: shards read forwards in a shuffled order, and a few of their images kept on this disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from calibration.dataset import DataError, Encoded, Feed, Split, Stream
from calibration.remote import CACHE_VARIABLE, data_folder
from calibration.shards import PackedImages

T = TypeVar("T")

#: Images in the shuffle buffer of a process: of ImageNet (110 kB each) about 225 MB.
BUFFER = 2048
#: Shards that a process reads in turn, so that sets which are sorted by class are mixed further than the buffer does.
OPEN = 4
#: Of a stream, so many images are kept for calibration, out of so many that are looked at for them.
POOL, LOOK_AHEAD = 1024, 8192
#: numpy pads short seeds with zeros: these keep the draws of the order apart from those of images and batches.
SHARDS, SAMPLES = 2, 3
KEPT = "streams"  # folder of kept images, in the data folder


class Shards(Protocol):
    """Files of images, each of which can be read from its beginning."""

    @property
    def count(self) -> int: ...

    def samples(self, shard: int) -> Iterator[Encoded]:
        """
        Raises:
            DataError: it cannot be read.
        """
        ...

    def identity(self) -> str:
        """What names this content and no other, as far as can be told without reading it."""
        ...


@dataclass(frozen=True)
class ShuffledShards:
    """A feed: shards in a shuffled order, a few of them in turn, their images through a shuffle buffer."""

    shards: Shards

    def in_order(self) -> Iterator[Encoded]:
        """All images as they lie in the shards."""
        for shard in range(self.shards.count):
            yield from self.shards.samples(shard)

    def one_pass(self, seed: int, epoch: int, shard: tuple[int, int]) -> Iterator[Encoded]:
        """Whole shards for each process; single images where there are more processes than shards."""
        rank, world = shard
        order = np.random.default_rng((seed, epoch, 0, 0, SHARDS)).permutation(self.shards.count).tolist()
        whole = len(order) >= world
        mine = order[rank::world] if whole else order
        generator = np.random.default_rng((seed, epoch, rank if whole else 0, 0, SAMPLES))
        samples = shuffled(interleaved(map(self.shards.samples, mine), OPEN), BUFFER, generator)
        return samples if whole else itertools.islice(samples, rank, None, world)

    def identity(self) -> str:
        return self.shards.identity()


def interleaved(parts: Iterator[Iterator[T]], at_once: int) -> Iterator[T]:
    """One item of each of `at_once` parts in turn; the next part takes the place of one that has ended."""
    reading = list(itertools.islice(parts, at_once))
    while reading:
        going_on = []
        for part in reading:
            current: Iterator[T] | None = part
            while current is not None:
                try:
                    yield next(current)
                except StopIteration:
                    current = next(parts, None)
                    continue
                going_on.append(current)
                break
        reading = going_on


def shuffled(samples: Iterator[T], room: int, generator: np.random.Generator) -> Iterator[T]:
    """The same samples, each drawn from the next `room` that are not given yet."""
    waiting: list[T] = []
    for sample in samples:
        if len(waiting) < room:
            waiting.append(sample)
            continue
        chosen = int(generator.integers(room))
        yield waiting[chosen]
        waiting[chosen] = sample
    for chosen in generator.permutation(len(waiting)).tolist():
        yield waiting[chosen]


def streamed(name: str, spec: str, feed: Feed, images: int, classes: int) -> Stream:
    """A training split of `images` images an epoch; its pool is read now, once, and kept."""
    pool = kept_split(
        name, spec, f"{feed.identity()} pool {POOL} of {LOOK_AHEAD}, {classes} classes", lambda: balanced(feed, classes)
    )
    return Stream(name, images, classes, feed, pool)


def balanced(feed: Feed, classes: int) -> Iterator[Encoded]:
    """Up to POOL images of the first LOOK_AHEAD in the order of seed 0, as even by class as these allow."""
    quota = -(-POOL // classes)
    counts: dict[int, int] = {}
    for sample in itertools.islice(feed.one_pass(0, 0, (0, 1)), LOOK_AHEAD):
        count = counts.get(sample.label, 0)
        if count < quota:
            counts[sample.label] = count + 1
            yield sample
        if sum(counts.values()) >= POOL:
            return


def kept_split(name: str, spec: str, identity: str, read: Callable[[], Iterator[Encoded]]) -> Split:
    """The split `name` of `spec`, from the cache where it is there and whole, else read now and kept.

    One file with the images one after the other, and one beside it, written last, that says where each is.

    Raises:
        DataError: the stream cannot be read, or the cache cannot be written.
    """
    key = hashlib.sha256(f"{name}\0{identity}".encode()).hexdigest()[:24]
    folder = data_folder() / KEPT / key
    pack, index = folder / f"{name}.pack", folder / f"{name}.json"
    split = _opened(name, pack, index)
    if split is not None:
        return split
    print(f"reading images of {name} from {spec} once, into {folder}", file=sys.stderr, flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(pack, index, read(), spec)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}): set {CACHE_VARIABLE}") from None
    split = _opened(name, pack, index)
    assert split is not None  # written just now
    print(f"{len(split)} images, {pack.stat().st_size / 1e6:.1f} MB, kept in {folder}", file=sys.stderr, flush=True)
    return split


def _write(pack: Path, index: Path, samples: Iterator[Encoded], spec: str) -> None:
    entries: list[tuple[str, int, int]] = []
    digest = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(prefix=f".{pack.name}.", dir=pack.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for sample in samples:
                file.write(sample.content)
                digest.update(sample.content)
                entries.append((sample.id, sample.label, len(sample.content)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, pack)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    facts = {"of": spec, "sha256": digest.hexdigest(), "images": entries}
    aside = index.with_name(f".{index.name}.{os.getpid()}")
    aside.write_text(json.dumps(facts))
    os.replace(aside, index)


def _opened(name: str, pack: Path, index: Path) -> Split | None:
    """None if it is not there or not whole."""
    try:
        facts = json.loads(index.read_text())
        with pack.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                return None
        entries = [(str(i), int(label), int(size)) for i, label, size in facts["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ids = tuple(i for i, _, _ in entries)
    sizes = np.array([size for _, _, size in entries], dtype=np.int64)
    images = PackedImages((pack,), np.zeros(len(entries), dtype=np.int32), np.cumsum(sizes) - sizes, sizes, ids)
    return Split(name, np.array([label for _, label, _ in entries], dtype=np.int64), ids, images, np.arange(len(ids)))
