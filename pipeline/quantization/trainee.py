"""What `fit` trains in QAT: a fake-quantized graph, its freeze schedule, and its distance from the float teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from pipeline.errors import TrainingError
from pipeline.quantization.graph import set_fake_quantization, set_observers, set_training
from pipeline.quantization.ranges import range_parameters
from pipeline.training.plan import TrainPlan
from pipeline.training.trainees import Execution, cross_entropy, decayed_and_plain


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


aten = torch.ops.aten
#: Where the residual stream of a transformer or of inverted bottlenecks can be seen in a fake-quantized graph: at int8
#: sums of two branches, and where a float stream is normalised for the next layer.
STREAM = (aten.add.Tensor, aten.add_.Tensor, aten.layer_norm.default)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 x KL(teacher || student) of logits [B, classes] softened by T, mean over the batch.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; T^2 keeps the gradients' size.
    """
    student_log = F.log_softmax(student.float() / temperature, dim=1)
    teacher_log = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two features of the same images, relative to the teacher's own power."""
    wanted = teacher.float()
    return (student.float() - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


@dataclass(frozen=True)
class Teacher:
    """The float model that a fake-quantized graph is held to.

    Attributes:
        module: the same graph without rounding, frozen; images [B, 3, H, W] -> logits [B, classes].
        features: of both graphs, names of the fake quantization modules whose inputs are compared; may be empty.
    """

    module: GraphModule
    features: tuple[str, ...] = ()


def feature_names(graph: GraphModule) -> tuple[str, ...]:
    """The fake quantization modules that round the residual stream, in the order of the graph: a few for each block.

    Raises:
        TrainingError: the graph has none.
    """
    found = tuple(
        str(node.target)
        for node in graph.graph.nodes
        if node.op == "call_module"
        and isinstance(graph.get_submodule(str(node.target)), FakeQuantize)
        and node.args[0].target in STREAM
    )
    if not found:
        raise TrainingError(
            "--distill-features compares the residual stream after each block, and this model has none that is int8 or "
            "normalised: leave it out (--distill works on logits)"
        )
    return found


@contextmanager
def captured(graph: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """What the named fake quantization modules were given in the forward passes of the body."""
    seen: dict[str, Tensor] = {}

    def take(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    handles = [graph.get_submodule(name).register_forward_pre_hook(take(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
