"""What `fit` trains in QAT: a fake-quantized graph with its freeze schedule and its teacher."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pipeline.quantization.graph import set_fake_quantization, set_observers, set_training
from pipeline.quantization.ranges import range_parameters
from pipeline.training.execution import Execution
from pipeline.training.objective import (
    Teacher,
    captured,
    cross_entropy,
    distillation,
    feature_distance,
    feature_names,
)
from pipeline.training.plan import TrainPlan
from pipeline.training.trainees import decayed_and_plain


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
