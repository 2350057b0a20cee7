"""A second implementation of what preprocessing.json says, of that file and numpy alone: as an app would have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BITS = 22  # of the fraction of a weight


def prepare(photo: np.ndarray, said: Mapping[str, Any]) -> np.ndarray:
    """Upright uint8 RGB [H, W, 3] -> uint8 RGB [height, width, 3]."""
    height, width = photo.shape[:2]
    resize, crop = said["resize"], said["crop"]
    if "short_side" in resize:
        short, long = resize["short_side"], int(resize["short_side"] * max(height, width) / min(height, width))
        size = (short, long) if height <= width else (long, short)
    else:
        size = resize["height"], resize["width"]
    resized = _resized(photo, size, resize["interpolation"])
    top, left = (round((have - crop[side]) / 2) for have, side in zip(size, ("height", "width"), strict=True))
    return resized[top : top + crop["height"], left : left + crop["width"]]


def _resized(photo: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """One axis after the other, rounded to 8 bits after each: a filter that overshoots is clipped between them."""
    shrinks = photo.shape[0] - size[0], photo.shape[1] - size[1]
    made = photo
    for axis in (0, 1) if shrinks[0] > 0 and shrinks[0] > 2 * shrinks[1] else (1, 0):
        weights = _weights(photo.shape[axis], size[axis], name) * 2**BITS
        whole = np.trunc(weights + np.copysign(0.5, weights))
        sums = np.tensordot(whole, made.astype(np.float64), (1, axis))  # of whole numbers below 2^53: exact
        made = np.moveaxis(np.clip(np.floor(sums / 2**BITS + 0.5), 0, 255), 0, axis)
    return made.astype(np.uint8)


def _weights(have: int, want: int, name: str) -> np.ndarray:
    """[want, have]: how much of each old pixel is in each new one; a smaller image averages over what it covers."""
    scale = have / want
    if name == "nearest":
        steps = np.full(want, scale)  # summed up, as Pillow does: what is half-way falls to one side by rounding
        steps[0] = scale / 2
        return np.eye(have)[np.cumsum(steps).astype(int)]
    support, kernel = FILTERS[name]
    wide = max(scale, 1.0)
    found = np.zeros((want, have))
    for new in range(want):
        centre = (new + 0.5) * scale
        first = max(int(centre - support * wide + 0.5), 0)
        last = min(int(centre + support * wide + 0.5), have)
        weight = kernel((np.arange(first, last) - centre + 0.5) / wide)
        found[new, first:last] = weight / weight.sum()
    return found


def _cubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.5, np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _hamming(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


#: Support in pixels, and weight at a distance.
FILTERS: Mapping[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "box": (0.5, lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)),
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0)),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, _lanczos),
}
