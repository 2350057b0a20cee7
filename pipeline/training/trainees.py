"""What `fit` trains in float: a module, and which of its parameters decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.execution import Execution
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
