"""Windows that slide over an image: how much padding a convolution or a pool has, on which side."""

from __future__ import annotations

from collections.abc import Sequence

from targets.coreml.interpreter.operators.unsupported import Unsupported


def padding(
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
