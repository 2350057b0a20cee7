"""The preprocessing that a package with an image input does by itself: its terms, its record, and its inverse.

A package with an image input takes pixels of 0..255; every session of this program is fed normalised float images. The
record in the package's metadata says which of the two a package wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from targets.coreml.package import PREFIX

_INPUT, _MEAN, _STD = f"{PREFIX}input", f"{PREFIX}mean", f"{PREFIX}std"
_IMAGE = "image"


@dataclass(frozen=True)
class Preprocessing:
    """(pixel / 255 - mean) / std for each channel in the order R, G, B; `mean` and `std` are of pixels in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: one of each for a channel, std above 0")

    def terms(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """(whole, rest, factor) for each channel, with ((pixel - whole) - rest) * factor equal to the formula above.

        `whole` is 255 * mean to the nearest integer and `rest` what is left, so that in half precision, too, the first
        difference is exact and each later step rounds relative to the result. pixel / 255 - mean would lose the digits
        that cancel: up to 1e-3 of a standard deviation near the mean.
        """
        shift = [255.0 * m for m in self.mean]
        whole = [float(round(s)) for s in shift]
        return (
            tuple(whole),
            tuple(s - w for s, w in zip(shift, whole, strict=True)),
            tuple(1 / (255.0 * s) for s in self.std),
        )


def record(preprocessing: Preprocessing) -> dict[str, str]:
    """What `read` needs, as user-defined metadata of a package."""
    return {_INPUT: _IMAGE, _MEAN: json.dumps(preprocessing.mean), _STD: json.dumps(preprocessing.std)}


def read(metadata: Mapping[str, str]) -> Preprocessing | None:
    """The preprocessing inside a package with this user-defined metadata; None where it takes normalised images.

    Raises:
        ValueError: the metadata say that it takes an image, and not with what mean and std.
    """
    if _INPUT not in metadata:
        return None
    try:
        if metadata[_INPUT] != _IMAGE:
            raise ValueError(f"unknown input {metadata[_INPUT]!r}")
        mean, std = (tuple(float(value) for value in json.loads(metadata[key])) for key in (_MEAN, _STD))
        return Preprocessing(mean, std)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the package's {PREFIX}* metadata do not tell its preprocessing ({type(error).__name__}: {error}): "
            "convert again"
        ) from error


def pixels(batch: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Normalised float images [N, C, H, W] back to the pixels they were made of, uint8 [N, C, H, W].

    Exact for images that were made from 8-bit pixels; any other value goes to the nearest pixel, and values outside of
    0..255 to its ends.

    Raises:
        ValueError: the number of channels is not that of `mean` and `std`, or a value is not finite.
    """
    if batch.ndim != 4 or batch.shape[1] != len(mean) or len(mean) != len(std):
        raise ValueError(f"images of shape {batch.shape} for a mean of {len(mean)} and a std of {len(std)} channels")
    if not np.isfinite(batch).all():
        raise ValueError("the images have values that are not finite: no pixel stands for them")
    centre, spread = (np.asarray(values, np.float64).reshape(1, -1, 1, 1) for values in (mean, std))
    return np.clip(np.rint((batch * spread + centre) * 255.0), 0, 255).astype(np.uint8)
