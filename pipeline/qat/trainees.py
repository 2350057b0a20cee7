"""The two things that `fit` trains: a float module, and a fake-quantized graph with its freeze schedule and teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from pipeline.qat.execution import Execution
from pipeline.qat.graph import set_fake_quantization, set_observers, set_training
from pipeline.qat.learned_ranges import range_parameters
from pipeline.qat.objective import (
    Teacher,
    captured,
    cross_entropy,
    distillation,
    feature_distance,
    feature_names,
)
from pipeline.qat.plan import TrainPlan


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


class QatTrainee:
    """A calibrated graph of `prepare`: observers and BatchNorm statistics move first, then stand still.

    Args:
        teacher: what the plan's distillation is held to; made with `teacher_of`.
    """

    def __init__(
        self, module: GraphModule, plan: TrainPlan, teacher: Teacher | None = None, execution: Execution | None = None
    ):
        self.module, self.plan, self.teacher = module, plan, teacher
        self.execution = execution or Execution()
        self.forward = self.execution.forward_of(module)
        self.teach = self.execution.forward_of(teacher.module) if teacher else None

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        frozen = done_fraction >= self.plan.batch_norm_freeze
        set_training(self.module, True, freeze_batch_norm=frozen, dropout=self.plan.dropout)
        set_observers(self.module, done_fraction < self.plan.observer_freeze)
        return self.execution.laid_out(images)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        plan, teacher = self.plan, self.teacher
        if teacher is None or self.teach is None:
            return cross_entropy(self.forward(images), targets, plan.label_smoothing)
        with torch.no_grad(), captured(teacher.module, teacher.features) as wanted:
            taught = self.teach(images)
        with captured(self.module, teacher.features) as seen:
            logits = self.forward(images)
        loss = plan.distill * distillation(logits, taught, plan.temperature)
        if plan.distill < 1:
            loss = loss + (1 - plan.distill) * cross_entropy(logits, targets, plan.label_smoothing)
        if teacher.features:
            distances = [feature_distance(seen[name], wanted[name]) for name in teacher.features]
            loss = loss + plan.distill_features * torch.stack(distances).mean()
        return loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        ranges = range_parameters(self.module)
        groups = decayed_and_plain(self.module, self.plan.weight_decay, apart=ranges)
        return [*groups, {"params": ranges, "weight_decay": 0.0, "lr_scale": self.plan.range_lr}] if ranges else groups

    def begin_evaluation(self) -> None:
        set_training(self.module, False)
        set_observers(self.module, False)


def teacher_of(graph: GraphModule, plan: TrainPlan) -> Teacher | None:
    """The float model of a prepared graph, as it is now; None if the plan distils nothing.

    Raises:
        TrainingError: features are wanted that this graph does not have.
    """
    if not (plan.distill or plan.distill_features):
        return None
    names = feature_names(graph) if plan.distill_features else ()
    module = copy.deepcopy(graph)
    set_training(module, False)
    set_fake_quantization(module, False)
    set_observers(module, False)
    return Teacher(module.requires_grad_(False), names)


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
