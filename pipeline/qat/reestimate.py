"""Calibration images in; the ranges of a prepared graph's activations, or of a trained graph's anew, out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver

from pipeline.errors import TrainingError
from pipeline.progress import progress
from pipeline.qat.graph import set_fake_quantization, set_observers, set_training
from pipeline.qat.learned_ranges import activations


def reestimate_ranges(
    graph: GraphModule,
    batches: Iterable[Tensor],
    images: int,
    device: torch.device,
    rounded_inputs: bool = True,
) -> int:
    """Forget what the observers of activations have seen, and let them see `images` calibration images.

    Averages over the batches count each batch alike, not the first one most. The graph is left in evaluation mode
    with frozen observers and with fake quantization.

    Args:
        rounded_inputs: every layer is observed on inputs that were rounded before it, which is what it will read;
            False observes the float activations, as calibration does.

    Returns:
        how many ranges were estimated.

    Raises:
        TrainingError: the ranges are trained parameters, or there are no images; no range was changed.
    """
    modules = [module for _, module in activations(graph)]
    if any(module.log_scale is not None for module in modules):
        raise TrainingError("the ranges of this graph are trained: estimating them anew would throw that away")
    observe(graph, batches, images, device, rounded_inputs, "estimating ranges")
    return len(modules)


def calibrate(graph: GraphModule, batches: Iterable[Tensor], images: int, device: torch.device) -> None:
    """Post-training calibration: float forward passes over `images` images set every range, then int8 is on.

    Batches count alike. The graph is left in evaluation mode with frozen observers.

    Raises:
        TrainingError: there are no images.
    """
    observe(graph, batches, images, device, False, "calibration")


def observe(
    graph: GraphModule,
    batches: Iterable[Tensor],
    images: int,
    device: torch.device,
    rounded_inputs: bool,
    title: str,
) -> None:
    """Let the observers of activations begin anew and see every batch alike."""
    rest = iter(batches)
    batch = next(rest, None)
    if batch is None:
        raise TrainingError("ranges cannot be estimated without images: give the calibration images")
    observers = [module.activation_post_process for _, module in activations(graph)]
    averaging = [observer for observer in observers if isinstance(observer, MovingAverageMinMaxObserver)]
    constants = [observer.averaging_constant for observer in averaging]
    set_training(graph, False)
    set_observers(graph, True)
    set_fake_quantization(graph, rounded_inputs)
    for observer in observers:
        observer.min_val.fill_(float("inf"))  # a histogram begins anew with that too
        observer.max_val.fill_(-float("inf"))
    with torch.no_grad(), progress(title, images) as bar:
        count = 0
        while batch is not None:
            count += 1
            for observer in averaging:
                observer.averaging_constant = 1 / count
            graph(batch.to(device))
            bar.advance(len(batch))
            batch = next(rest, None)
    for observer, constant in zip(averaging, constants, strict=True):
        observer.averaging_constant = constant
    set_observers(graph, False)
    set_fake_quantization(graph, True)
