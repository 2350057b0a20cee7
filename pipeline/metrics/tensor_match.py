"""Finds the tensor of an artifact that is a given int8 tensor of the QDQ program.

Formats keep neither names nor layouts. Scale and zero point tell which tensors can be the same; among these, and among
the orders of axes that fit, the nearest one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.drift import decibels

MOST_AXES = 4  # with more than one element: 24 orders


@dataclass(frozen=True)
class Int8Tensor:
    """Real value: (values - zero_point) x scale."""

    scale: float
    zero_point: int
    values: NDArray[np.int8]


@dataclass(frozen=True)
class Match:
    """Where a tensor stands: its number among the artifact's, and the order of its axes (those of one element left
    out) that gives ours."""

    number: int
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Power:
    """Sums of squares over values of signal and noise."""

    signal: float
    noise: float

    def __add__(self, other: Power) -> Power:
        return Power(self.signal + other.signal, self.noise + other.noise)

    @property
    def sqnr_db(self) -> float | None:
        """None without noise, or without a signal."""
        return decibels(self.signal, self.noise)


def find(ours: Int8Tensor, tensors: Sequence[Int8Tensor], rtol: float) -> Match | None:
    """The tensor and the order of axes nearest to `ours`; None if no tensor has its scale, zero point and size.

    Args:
        rtol: how exactly the format keeps a scale.
    """
    best: tuple[float, Match] | None = None
    for number, other in enumerate(tensors):
        if other.values.size != ours.values.size or other.zero_point != ours.zero_point:
            continue
        if abs(other.scale - ours.scale) > rtol * ours.scale:
            continue
        for axes in _orders(other.values.shape, ours.values.shape):
            noise = compare(ours, other, axes).noise
            if best is None or noise < best[0]:
                best = noise, Match(number, axes)
    return None if best is None else best[1]


def compare(ours: Int8Tensor, other: Int8Tensor, axes: tuple[int, ...]) -> Power:
    """`other`, with its axes in the order `axes`, against `ours`; in units of our scale."""
    arranged = other.values.squeeze().transpose(axes).reshape(-1)
    reference = ours.values.reshape(-1).astype(np.float64) - ours.zero_point
    noise = reference - (arranged.astype(np.float64) - other.zero_point) * (other.scale / ours.scale)
    return Power(float(reference @ reference), float(noise @ noise))


def _orders(shape: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes of `shape` that give `wanted` if some do, else all: a format may join or split axes."""
    sizes = [n for n in shape if n != 1]
    aim = [n for n in wanted if n != 1]
    if len(sizes) > MOST_AXES:
        yield tuple(range(len(sizes)))
        return
    orders = list(permutations(range(len(sizes))))
    fitting = [order for order in orders if [sizes[axis] for axis in order] == aim]
    yield from fitting or orders
