"""Match the scales found in a file with the trained ones, and tell trained weights from other constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from targets.types import QuantParams

# A format that stores unsigned values adds this to every zero point and changes nothing else.
UINT8_OFFSET = 128


@dataclass(frozen=True)
class ScaleMatch:
    """How many of the trained tensors have their scale and zero point in the file.

    Attributes:
        total: trained tensors.
        found: those of them that the file holds.
        missing: names of the others, in the order of the program.
    """

    total: int
    found: int
    missing: tuple[str, ...]


def match_scales(trained: Mapping[str, QuantParams], found: Sequence[QuantParams], rtol: float = 1e-6) -> ScaleMatch:
    """Look up each trained tensor among the `found` ones, by value: formats do not keep the names.

    A tensor is found when some tensor of the file has as many scales, all within `rtol` and in the same order, and
    the same zero points (up to the uint8 offset).

    Args:
        rtol: 1e-6 is float32 rounding; a format that stores scales as float16 needs about 1e-3.
    """
    candidates: dict[int, list[QuantParams]] = {}
    for params in dict.fromkeys(found):
        candidates.setdefault(len(params.scale), []).append(params)
    stacked = {n: (np.array([p.scale for p in group]), group) for n, group in candidates.items()}

    missing = tuple(name for name, params in trained.items() if not _contains(stacked, params, rtol))
    return ScaleMatch(total=len(trained), found=len(trained) - len(missing), missing=missing)


def _contains(stacked: Mapping[int, tuple[np.ndarray, list[QuantParams]]], params: QuantParams, rtol: float) -> bool:
    if len(params.scale) not in stacked:
        return False
    scales, group = stacked[len(params.scale)]  # scales: [tensors of the file, channels]
    wanted = np.array(params.scale)
    close = (np.abs(scales - wanted) <= rtol * np.abs(wanted)).all(axis=1)
    return any(_same_zero_point(params.zero_point, group[i].zero_point) for i in np.flatnonzero(close))


def _same_zero_point(trained: tuple[int, ...], found: tuple[int, ...]) -> bool:
    # Symmetric tensors are stored with one zero, one zero for each channel, or none at all.
    if not any(trained) and not any(found):
        return True
    if len(found) == 1:
        found *= len(trained)
    if len(found) != len(trained):
        return False
    offsets = {f - t for f, t in zip(found, trained, strict=True)}
    return offsets in ({0}, {UINT8_OFFSET}, {-UINT8_OFFSET})


def is_trained(weight: np.ndarray) -> bool:
    """Whether the weight is more than a way to copy, add or average: these have equal elements beside zeros.

    One-hot kernels, rows of ones and rows of 1/n are constants of the architecture, written as products because a
    delegate takes those. They hold no float weight that a quantizer forgot.
    """
    values = np.unique(weight[weight != 0])
    return len(values) > 1
