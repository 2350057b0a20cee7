"""A split and a transform in, batches of tensors out; augmentation is seeded image by image.

What an image is turned into depends on (seed, epoch, index) alone: not on the number of loader processes, not on
where an interrupted epoch was taken up again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from calibration.dataset import Split
from calibration.preprocess import EvalTransform

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Batch = tuple[Tensor, Tensor, Tensor]


def eval_batches(
    split: Split,
    transform: EvalTransform,
    batch_size: int,
    indices: Sequence[int] | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Images [B, 3, H, W] float32, labels [B] and indices [B], in the order of `indices` (default: of the split)."""
    order = list(range(len(split))) if indices is None else [int(i) for i in indices]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    yield from _load(_Items(split, transform.build(), None), batches, workers)


def train_loader(
    split: Split,
    transform: Callable[[Image], Tensor],
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int = 0,
    start_step: int = 0,
) -> Iterator[Batch]:
    """Shuffled, augmented batches of one epoch from step `start_step` on; a last batch of one image is left out."""
    order = np.random.default_rng((seed, epoch)).permutation(len(split)).tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if batches and len(batches[-1]) == 1:
        batches.pop()  # BatchNorm cannot train on one image
    yield from _load(_Items(split, transform, (seed, epoch)), batches[start_step:], workers)


class _Items:
    """A map-style dataset of (image, label, index)."""

    def __init__(self, split: Split, transform: Callable[[Image], Tensor], seed: tuple[int, int] | None):
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image = self.split.image(index)
        if self.seed is None:
            return self.transform(image), int(self.split.labels[index]), index
        with _seeded((*self.seed, index)):
            return self.transform(image), int(self.split.labels[index]), index


def _load(items: _Items, batches: list[list[int]], workers: int) -> Iterator[Batch]:
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
