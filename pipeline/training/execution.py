"""How a training computes its forward and backward pass: memory layout, compilation, number format, loss scaling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import TrainingError


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


Format = Literal["off", "bf16", "fp16"]
DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """`bf16` and `fp16` are torch.autocast; `fp16` scales the loss, because its smallest numbers are 6e-8."""

    name: Format = "off"

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=DTYPES[self.name], enabled=self.name != "off")

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Dynamic loss scaling for float16, nothing otherwise."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")


OFF = Precision()


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto` is bfloat16 on a CUDA device that has it.

    Raises:
        TrainingError: `bf16` on a device without it.
    """
    if name == "fp16":
        return Precision("fp16")
    if name == "off" or (name == "auto" and device.type != "cuda"):
        return Precision("off")
    capable = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "bf16" and not capable:
        raise TrainingError(
            f"--amp bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use --amp fp16 or --amp off"
        )
    return Precision("bf16" if capable else "off")
