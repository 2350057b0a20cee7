"""What `fit` trains in float, and how a forward and backward pass is computed: layout, compilation, number format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TrainingError
from pipeline.training.plan import TrainPlan


class FloatTrainee:
    """A module in float; its first epochs may see images of half the height and width."""

    def __init__(self, module: nn.Module, plan: TrainPlan, execution: Execution | None = None):
        self.module, self.plan = module, plan
        self.execution = execution or Execution()
        self.forward = self.execution.forward_of(module)

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        self.module.train()
        if not self.plan.dropout:
            for module in self.module.modules():
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    module.eval()
        if epoch < self.plan.half_size_epochs:
            images = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
        return self.execution.laid_out(images)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self.forward(images), targets, self.plan.label_smoothing)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decayed_and_plain(self.module, self.plan.weight_decay)

    def begin_evaluation(self) -> None:
        self.module.eval()


def decayed_and_plain(module: nn.Module, weight_decay: float, apart: Iterable[Tensor] = ()) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only (the authors' no_weight_decay exempts the class token too)."""
    left_out = {id(p) for p in apart}
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            exempt = parameter.ndim <= 1 or "cls_token" in name or "class_token" in name
            (plain if exempt else decay).append(parameter)
    return [
        {"params": decay, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the batch.

    Args:
        logits: [B, classes]
        targets: labels int64 [B], or probabilities [B, classes] with their smoothing inside (mixup).
    """
    smoothing = label_smoothing if targets.dim() == 1 else 0.0
    return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


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
