"""Resizing of the last two dimensions. Each is two products with a matrix that holds the weights of the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from targets.coreml.interpreter.operators.unsupported import Unsupported
from targets.coreml.interpreter.rounding import Arithmetic


def upsample_nearest_neighbor(
    a: Arithmetic, x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    height = math.floor(scale_factor_height * x.shape[-2])
    width = math.floor(scale_factor_width * x.shape[-1])
    return resize_nearest_neighbor(a, x, height, width)


def resize_nearest_neighbor(a: Arithmetic, x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Pixel i of the result is pixel floor(i * input size / output size)."""
    for axis, size in ((-2, target_size_height), (-1, target_size_width)):
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
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "PLAIN"
    height = math.floor(scale_factor_height * x.shape[-2])
    width = math.floor(scale_factor_width * x.shape[-1])
    return _bilinear(a, x, height, width, mode)


def resize_bilinear(
    a: Arithmetic,
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    return _bilinear(a, x, target_size_height, target_size_width, sampling_mode)


def grid(size_in: int, size_out: int, mode: str) -> Tensor:
    """Where in the input each pixel of the output lies, float64 [size_out].

    Formulas: coremltools' documentation of `resize_bilinear`. PLAIN is i * size_in / size_out, TensorFlow's
    ResizeBilinear without align_corners and half_pixel_centers.
    """
    i = torch.arange(size_out, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if size_out == 1:
            points = torch.full_like(i, (size_in - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0)
        else:
            points = i * ((size_in - 1) / (size_out - 1))
    elif mode == "DEFAULT":
        points = i * 0.0 if size_out == 1 else i * ((size_in - size_in / size_out) / (size_out - 1))
    elif mode == "PLAIN":
        points = i * (size_in / size_out)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size_in - 1) / size_out
        points = 0.5 * delta + i * delta
    elif mode == "UNALIGN_CORNERS":
        spacing = size_in / size_out
        points = i * spacing + 0.5 * spacing - 0.5
    else:
        raise Unsupported(f"resize_bilinear with sampling_mode {mode!r}")
    return points.clamp(0, size_in - 1)


def _bilinear(a: Arithmetic, x: Tensor, height: int, width: int, mode: str) -> Tensor:
    rows = _weights(x.shape[-2], height, mode)
    columns = _weights(x.shape[-1], width, mode)
    return a.product(a.keep(a.product(rows, x)), columns.T)


def _weights(size_in: int, size_out: int, mode: str) -> Tensor:
    """[size_out, size_in]: what each pixel of the input adds to each of the output."""
    points = grid(size_in, size_out, mode)
    low = points.floor().long()
    high = (low + 1).clamp(max=size_in - 1)
    share = points - low
    weights = torch.zeros(size_out, size_in, dtype=torch.float64)
    row = torch.arange(size_out)
    weights.index_put_((row, low), 1 - share, accumulate=True)
    weights.index_put_((row, high), share, accumulate=True)
    return weights.float()
