"""Resizing of the last two dimensions. Bilinear is two products with a matrix that holds the weights of the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def upsample_nearest_neighbor(
    a: Arithmetic, x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    """Pixel i of the result is pixel floor(i * input size / output size)."""
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        size = math.floor(factor * x.shape[axis])
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


def upsample_bilinear(
    a: Arithmetic,
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """`half_pixel_centers` is the opposite of `align_corners` unless given."""
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and half:
        raise Unsupported("upsample_bilinear with align_corners and half_pixel_centers")
    height, width = x.shape[-2:]
    rows = _weights(height, math.floor(scale_factor_height * height), align_corners, half)
    columns = _weights(width, math.floor(scale_factor_width * width), align_corners, half)
    return a.product(a.keep(a.product(rows, x)), columns.T)


def _weights(size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """[size_out, size_in]: what each pixel of the input adds to each of the output."""
    points = _points(size_in, size_out, align_corners, half_pixel_centers)
    low = points.floor().long()
    high = (low + 1).clamp(max=size_in - 1)
    share = points - low
    weights = torch.zeros(size_out, size_in, dtype=torch.float64)
    row = torch.arange(size_out)
    weights.index_put_((row, low), 1 - share, accumulate=True)
    weights.index_put_((row, high), share, accumulate=True)
    return weights.float()


def _points(size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """Where in the input each pixel of the output lies, float64 [size_out].

    Formulas: coremltools' documentation of `resize_bilinear`. The last is TensorFlow's ResizeBilinear without
    align_corners and half_pixel_centers.
    """
    i = torch.arange(size_out, dtype=torch.float64)
    spacing = size_in / size_out
    if align_corners:
        points = i * ((size_in - 1) / (size_out - 1)) if size_out > 1 else i
    elif half_pixel_centers:
        points = i * spacing + 0.5 * spacing - 0.5
    else:
        points = i * spacing
    return points.clamp(0, size_in - 1)
