"""Convolutions, pools and resizing: operators that slide or stretch the last two dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from targets.coreml.interpreter.arithmetic import Arithmetic, Unsupported


def conv(
    a: Arithmetic,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """[N, C_in, *D] with [C_out, C_in / groups, *K] -> [N, C_out, *D']."""
    rank = weight.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    around = _padding(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
    return _with_bias(a.convolve(_padded(x, around), weight, strides, dilations, groups), bias)


def conv_transpose(
    a: Arithmetic,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """[N, C_in, *D] with [C_in, C_out / groups, *K] -> [N, C_out, *D'].

    A convolution of the image with zeros between its pixels, with each kernel turned around.
    """
    rank = weight.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], dilations, strict=True)]
    whole = [(n - 1) * s + r + 1 for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
    before, size = _transposed_window(pad_type, pad, output_shape, x.shape[2:], whole, strides)
    spread = x.new_zeros(*x.shape[:2], *[(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True)])
    every = tuple(slice(None, None, s) for s in strides)
    spread[(slice(None), slice(None), *every)] = x
    # Enough zeros for every position of the output; a negative number takes pixels away.
    around = [(r - b, b + n - w + r) for r, b, n, w in zip(reach, before, size, whole, strict=True)]
    c_in, c_out = weight.shape[0], weight.shape[1] * groups
    kernels = weight.flip(*range(2, 2 + rank)).reshape(groups, c_in // groups, c_out // groups, *weight.shape[2:])
    kernels = kernels.transpose(1, 2).reshape(c_out, c_in // groups, *weight.shape[2:])
    return _with_bias(a.convolve(_padded(spread, around), kernels, [1] * rank, dilations, groups), bias)


def avg_pool(
    a: Arithmetic,
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Tensor:
    """Pixels that `ceil_mode` reaches beyond the padding never count, as in PyTorch."""
    strides = strides or [1] * len(kernel_sizes)
    around, beyond = _around(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    counted = functional.pad(torch.ones_like(x[:1, :1]), around, value=0.0 if exclude_padding_from_average else 1.0)
    sums = _sums(a, functional.pad(functional.pad(x, around), beyond), kernel_sizes, strides)
    counts = _sums(Arithmetic(a.rounding, False), functional.pad(counted, beyond), kernel_sizes, strides)
    return sums / counts


def max_pool(
    a: Arithmetic,
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Padding is never the largest."""
    strides = strides or [1] * len(kernel_sizes)
    around, beyond = _around(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pools: dict[int, Callable[..., Tensor]] = {
        1: functional.max_pool1d,
        2: functional.max_pool2d,
        3: functional.max_pool3d,
    }
    padded = functional.pad(functional.pad(x, around, value=-math.inf), beyond, value=-math.inf)
    return pools[len(kernel_sizes)](padded, kernel_sizes, strides)


def _padding(
    pad_type: str,
    pad: Sequence[int] | None,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) for each spatial dimension.

    `same` gives ceil(size / stride) positions; an odd pixel of padding goes to the end, with `same_lower` to the front.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        if pad is None:
            raise Unsupported("pad_type custom without pad")
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise Unsupported(f"pad_type {pad_type!r} (known: valid, custom, same, same_lower)")
    pairs = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if pad_type == "same" else (large, small))
    return pairs


def _transposed_window(
    pad_type: str,
    pad: list[int] | None,
    output_shape: list[int] | None,
    size: Sequence[int],
    whole: Sequence[int],
    strides: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Where the output begins in the whole transposed convolution, and its size, for each spatial dimension."""
    if pad_type == "valid":
        before, found = [0] * len(whole), list(whole)
    elif pad_type == "custom" and pad is not None:
        before = list(pad[::2])
        found = [w - pad[2 * i] - pad[2 * i + 1] for i, w in enumerate(whole)]
    elif pad_type == "same":
        found = [n * s for n, s in zip(size, strides, strict=True)] if output_shape is None else output_shape[2:]
        before = [max(w - n, 0) // 2 for w, n in zip(whole, found, strict=True)]
    else:
        raise Unsupported(f"conv_transpose with pad_type {pad_type!r} and pad {pad}")
    return before, found if output_shape is None else list(output_shape[2:])


def _padded(x: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    return functional.pad(x, [n for pair in reversed(around) for n in pair])


def _with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias.reshape(-1, *[1] * (x.dim() - 2))


def _sums(a: Arithmetic, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Sum under each window, as a depthwise convolution with ones."""
    channels = x.shape[1]
    ones = torch.ones(channels, 1, *kernel)
    return a.convolve(x, ones, strides, [1] * len(kernel), channels)


def _around(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], pad_type: str, pad: Sequence[int] | None, ceil_mode: bool
) -> tuple[list[int], list[int]]:
    """The padding, and what `ceil_mode` adds behind it, each in the order of torch's `pad`."""
    pairs = _padding(pad_type, pad, x.shape[2:], kernel, strides, [1] * len(kernel))
    beyond = []
    for n, k, s, (before, after) in zip(x.shape[2:], kernel, strides, pairs, strict=True):
        size = n + before + after
        positions = -(-(size - k) // s) + 1
        if (positions - 1) * s >= n + before and before + after > 0:
            positions -= 1  # a window must begin in the image or in front of it
        beyond.append(max((positions - 1) * s + k - size, 0) if ceil_mode else 0)
    return [n for pair in reversed(pairs) for n in pair], [n for extra in reversed(beyond) for n in (0, extra)]


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
