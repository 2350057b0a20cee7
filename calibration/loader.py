"""Loads batches of tensors from a split or a stream; augmentation is seeded image by image.

What an image is turned into depends on (seed, epoch, index) alone: not on the number of loader processes, not on
where an interrupted epoch was taken up again. What is mixed in a batch depends on (seed, epoch, step, rank).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from calibration.augment import Mixing
from calibration.dataset import DataError, Encoded, Split, Stream
from calibration.preprocess import EvalTransform, read_encoded

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Batch = tuple[Tensor, Tensor, Tensor]

T = TypeVar("T")

#: numpy pads short seeds with zeros, so (seed, epoch, step, 0) would be the seed of an image; this keeps them apart.
MIXING = 1
READ_AHEAD = 2  # batches of a stream that are read, not decoded, while others are trained on


def eval_batches(
    split: Split,
    transform: EvalTransform,
    batch_size: int,
    indices: Sequence[int] | None = None,
    workers: int = 0,
    normalize: bool = True,
) -> Iterator[Batch]:
    """Images [B, 3, H, W], labels [B] and indices [B], in the order of `indices` (default: of the split).

    Images are float32; not normalised, they are the pixels that these are made of, uint8.
    """
    order = list(range(len(split))) if indices is None else [int(i) for i in indices]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    yield from _load(_Items(split, transform.build(normalize), None), batches, workers)


def train_loader(
    data: Split | Stream,
    transform: Callable[[Image], Tensor],
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int = 0,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    mix: Mixing | None = None,
) -> Iterator[Batch]:
    """Shuffled, augmented batches of one process and epoch, from batch `start_step` on.

    N processes see, step by step, the same images as one with batches of N x `batch_size`; a last batch that would
    leave one of them less than two images is left out. Of a stream, each process has its own part.

    Args:
        batch_size: images of one batch of this process.
        shard: rank of this process, and number of processes.
        mix: mixes the images of each batch.

    Yields:
        images [B, 3, H, W] float32; labels int64 [B], or with `mix` soft targets float32 [B, classes]; int64 [B],
        positions in the split, or in the order of the stream.
    """
    rank, world = shard
    if isinstance(data, Stream):
        loaded = _load(
            _EncodedItems(transform, (seed, epoch), data.skip_bad),
            read_ahead(_stream_batches(data, batch_size, seed, epoch, start_step, shard), READ_AHEAD),
            workers,
        )
    else:
        order = np.random.default_rng((seed, epoch)).permutation(len(data)).tolist()
        batches = [order[part][rank::world] for part in _steps(len(data), batch_size * world, world)]
        loaded = _load(_Items(data, transform, (seed, epoch)), batches[start_step:], workers)
    for step, (images, labels, indices) in enumerate(loaded, start_step):
        if mix is not None:
            with _seeded((seed, epoch, step, rank, MIXING)):
                images, labels = mix(images, labels)
        yield images, labels, indices


def read_ahead(items: Iterator[T], room: int) -> Iterator[T]:
    """The same items; a thread makes the next `room` of them while the last one is being used.

    Raises:
        Exception: what `items` raises, after all items before it.
    """
    end = object()
    thread = ThreadPoolExecutor(1, "read ahead")
    try:
        waiting = deque(thread.submit(next, items, end) for _ in range(room))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _steps(images: int, batch: int, world: int) -> list[slice]:
    """What each step takes of the order of an epoch; BatchNorm cannot train on one image."""
    return [
        slice(start, min(start + batch, images))
        for start in range(0, images, batch)
        if min(batch, images - start) >= 2 * world
    ]


_Batch = list[tuple[int, Encoded]]  # position in the order, image; of one batch of a stream


def _stream_batches(
    stream: Stream, batch_size: int, seed: int, epoch: int, start_step: int, shard: tuple[int, int]
) -> Iterator[_Batch]:
    """The images of each step; those of steps before `start_step` are read past, not decoded."""
    rank, world = shard
    images = stream.encoded(seed, epoch, shard)
    for step, part in enumerate(_steps(len(stream), batch_size * world, world)):
        batch = [(position, next(images)) for position in range(part.start + rank, part.stop, world)]
        if step >= start_step:
            yield batch


class _EncodedItems:
    """A map-style dataset whose keys are the images themselves, so that loader processes decode and augment them."""

    def __init__(self, transform: Callable[[Image], Tensor], seed: tuple[int, int], skip_bad: bool):
        self.transform, self.seed, self.skip_bad = transform, seed, skip_bad

    def __getitem__(self, key: tuple[int, Encoded]) -> tuple[Tensor, int, int] | None:
        position, sample = key
        try:
            image = read_encoded(sample.content, sample.id)
        except DataError:
            if self.skip_bad:
                return None
            raise
        with _seeded((*self.seed, position)):
            return self.transform(image), sample.label, position


def _collate(items: list[tuple[Tensor, int, int] | None]) -> Batch:
    """One batch without what could not be decoded.

    Raises:
        DataError: fewer than two images are left.
    """
    from torch.utils.data import default_collate

    good = [item for item in items if item is not None]
    if len(good) < min(2, len(items)):
        raise DataError(f"{len(items) - len(good)} of {len(items)} images of a batch cannot be decoded")
    batch: Batch = default_collate(good)
    return batch


class _Items:
    """A map-style dataset of (image, label, index)."""

    def __init__(self, split: Split, transform: Callable[[Image], Tensor], seed: tuple[int, int] | None):
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image = self.split.image(index)
        with nullcontext() if self.seed is None else _seeded((*self.seed, index)):
            return self.transform(image), int(self.split.labels[index]), index


def _load(items: _Items | _EncodedItems, batches: list[list[int]] | Iterator[_Batch], workers: int) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    # Its own generator: a loader otherwise draws from torch's global one, on which dropout depends.
    generator = torch.Generator().manual_seed(0)
    # A map-style dataset needs no base class.
    loader: DataLoader[Batch] = DataLoader(
        items,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        generator=generator,
        collate_fn=_collate,
    )
    yield from loader


@contextmanager
def _seeded(key: tuple[int, ...]) -> Iterator[None]:
    """All three generators that image transforms draw from, seeded inside and as they were after."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.default_generator.manual_seed(value)  # torch.manual_seed would seed CUDA too, and not give it back
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
