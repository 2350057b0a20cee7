"""How a training computes its forward and backward pass: a module in, a faster callable with the same results out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Execution:
    """Choices that change the speed of training and, but for rounding, not its result.

    Attributes:
        channels_last: images and what convolutions make of them lie in memory as [B, H, W, C].
        compile: through torch.compile, which needs a C++ compiler on a CPU and Triton on a GPU.
    """

    channels_last: bool = False
    compile: bool = False

    def forward_of(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """`module` as it is called in training: images [B, 3, H, W] -> logits [B, classes]."""
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(module) if self.compile else module

    def laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images
