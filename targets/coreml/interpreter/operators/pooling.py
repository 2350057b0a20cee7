"""Averages, maxima and norms under a window that slides over an image [B, C, *D], 1 to 3 spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from targets.coreml.interpreter.operators.windows import padding
from targets.coreml.interpreter.rounding import Arithmetic


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


def l2_pool(
    a: Arithmetic,
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Root of the sum of squares."""
    strides = strides or [1] * len(kernel_sizes)
    around, beyond = _around(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares = a.keep(functional.pad(functional.pad(x, around), beyond).square())
    return torch.sqrt(_sums(a, squares, kernel_sizes, strides))


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


def _sums(a: Arithmetic, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Sum under each window, as a depthwise convolution with ones."""
    channels = x.shape[1]
    ones = torch.ones(channels, 1, *kernel)
    return a.convolve(x, ones, strides, [1] * len(kernel), channels)


def _around(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int] | None,
    ceil_mode: bool,
) -> tuple[list[int], list[int]]:
    """The padding, and what `ceil_mode` adds behind it, each in the order of torch's `pad`."""
    pairs = padding(pad_type, pad, x.shape[2:], kernel, strides, [1] * len(kernel))
    beyond = []
    for n, k, s, (before, after) in zip(x.shape[2:], kernel, strides, pairs, strict=True):
        size = n + before + after
        positions = -(-(size - k) // s) + 1
        if (positions - 1) * s >= n + before and before + after > 0:
            positions -= 1  # a window must begin in the image or in front of it
        beyond.append(max((positions - 1) * s + k - size, 0) if ceil_mode else 0)
    return [n for pair in reversed(pairs) for n in pair], [n for extra in reversed(beyond) for n in (0, extra)]
