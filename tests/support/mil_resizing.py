"""Draws of MIL resizing operators, sampled at the grid points that coremltools documents for each mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from mil_programs import Draw, Generator, OneOperator, wide


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def grid(mode: str, size: int, count: int) -> np.ndarray:
    """Where the `count` outputs lie in an input of `size` pixels, as in the notes of resize_bilinear."""
    i = np.arange(count, dtype=np.float64)
    between = max(count - 1, 1)  # a single output has no spacing
    if mode == "STRICT_ALIGN_CORNERS":
        points = i * (size - 1) / between
    elif mode == "DEFAULT":
        points = i * (size - size / count) / between
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * size / count - 0.5
    else:
        raise ValueError(mode)
    return np.clip(points, 0, size - 1)


def _sampled(x: np.ndarray, axis: int, points: np.ndarray) -> np.ndarray:
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    part = (points - low).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
    return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part


def _bilinear(x: np.ndarray, mode: str, height: int, width: int) -> np.ndarray:
    rows = _sampled(wide(x), -2, grid(mode, x.shape[-2], height))
    return _sampled(rows, -1, grid(mode, x.shape[-1], width))


def _nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixel whose area holds the output's upper left corner: floor(i * size / count)."""
    rows = np.take(x, [i * x.shape[-2] // height for i in range(height)], -2)
    return np.take(rows, [i * x.shape[-1] // width for i in range(width)], -1)


def _upsample_nearest_neighbor(draw: Draw) -> OneOperator:
    """Whole factors, and one and a half of an even side: for others it is not documented which factor samples."""
    x = draw.floats(draw.shape(3, 4))
    factors: list[Any] = [draw.integer(1, 3), draw.integer(1, 3)]
    if draw.seed % 3 == 2:
        x = draw.floats((1, 2, draw.any([2, 4]), draw.any([2, 4])))
        factors = [np.float32(1.5), np.float32(2.5)]
    attributes = {"scale_factor_height": factors[0], "scale_factor_width": factors[1]}
    height, width = int(x.shape[-2] * factors[0]), int(x.shape[-1] * factors[1])
    if draw.seed % 3 == 1:
        del attributes["scale_factor_width"]
        width = x.shape[-1]
    return OneOperator(
        lambda x: _mb().upsample_nearest_neighbor(x=x, **attributes),
        {"x": x},
        (_nearest(x, height, width),),
        rtol=None,
    )


def _upsample_bilinear(draw: Draw) -> OneOperator:
    """The factor is taken from the sizes again; without align_corners and half pixels it is TensorFlow's default."""
    attributes, mode = draw.turn(
        [
            ({"align_corners": True}, "STRICT_ALIGN_CORNERS"),
            ({"align_corners": False}, "UNALIGN_CORNERS"),
            ({}, "STRICT_ALIGN_CORNERS"),
            ({"align_corners": False, "half_pixel_centers": False}, "DEFAULT"),
            ({"align_corners": False, "half_pixel_centers": True}, "UNALIGN_CORNERS"),
        ]
    )
    x = draw.floats(draw.shape(3, 4))
    factors: list[Any] = [draw.integer(1, 3), draw.integer(1, 3)]
    if draw.seed // 5 % 2:
        factors = [np.float32(1.5), np.float32(2.25)]
    height, width = int(x.shape[-2] * factors[0]), int(x.shape[-1] * factors[1])
    return OneOperator(
        lambda x: _mb().upsample_bilinear(
            x=x, scale_factor_height=factors[0], scale_factor_width=factors[1], **attributes
        ),
        {"x": x},
        draw.rounded(_bilinear(x, mode, height, width)),
    )


RESIZING: dict[str, Generator] = {
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
}
