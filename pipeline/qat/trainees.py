"""The two things that `fit` trains: a float module, and a fake-quantized graph with its freeze schedule."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from pipeline.progress import progress
from pipeline.qat.graph import set_fake_quantization, set_observers, set_training
from pipeline.qat.plan import TrainPlan


class FloatTrainee:
    """A module in float; its first epochs may see images of half the height and width."""

    def __init__(self, module: nn.Module, plan: TrainPlan):
        self.module = module
        self.half_size_epochs = plan.half_size_epochs

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        self.module.train()
        if epoch < self.half_size_epochs:
            return F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
        return images

    def begin_evaluation(self) -> None:
        self.module.eval()


class QatTrainee:
    """A graph of `prepare`: observers and BatchNorm statistics move first, then stand still."""

    def __init__(self, module: GraphModule, plan: TrainPlan):
        self.module = module
        self.plan = plan

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        set_training(self.module, True, freeze_batch_norm=done_fraction >= self.plan.batch_norm_freeze)
        set_observers(self.module, done_fraction < self.plan.observer_freeze)
        return images

    def begin_evaluation(self) -> None:
        set_training(self.module, False)
        set_observers(self.module, False)


def calibrate(graph: GraphModule, batches: Iterable[Tensor], images: int, device: torch.device) -> None:
    """Post-training calibration: float forward passes over `images` images fill every observer, then int8 is on.

    The graph is left in evaluation mode with frozen observers.
    """
    set_training(graph, False)
    set_fake_quantization(graph, False)
    set_observers(graph, True)
    with torch.no_grad(), progress("calibration", images) as bar:
        for batch in batches:
            graph(batch.to(device))
            bar.advance(len(batch))
    set_observers(graph, False)
    set_fake_quantization(graph, True)
