"""What training minimises: images and labels in, one loss out; with a teacher, also how far the student is from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F
from torchao.quantization.pt2e.fake_quantize import FakeQuantize

from pipeline.errors import TrainingError

aten = torch.ops.aten
#: Where the residual stream of a transformer or of inverted bottlenecks can be seen in a fake-quantized graph: at int8
#: sums of two branches, and where a float stream is normalised for the next layer.
STREAM = (aten.add.Tensor, aten.add_.Tensor, aten.layer_norm.default)


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the batch.

    Args:
        logits: [B, classes]
        targets: labels int64 [B], or probabilities [B, classes] with their smoothing inside (mixup).
    """
    smoothing = label_smoothing if targets.dim() == 1 else 0.0
    return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


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
