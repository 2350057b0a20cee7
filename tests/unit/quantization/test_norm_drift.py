"""How far training moved BatchNorm's running statistics, against the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor
from torch.fx import GraphModule

from pipeline.quantization.graph import moved_norms, norm_statistics, prepare, set_training
from pipeline.quantization.quantizer import Scheme

IMAGES = torch.randn(8, *INPUT_SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def graph() -> GraphModule:
    torch.manual_seed(0)
    return prepare(TinyHybrid(), INPUT_SIZE, Scheme())


def buffers(graph: GraphModule, layer: str) -> tuple[Tensor, Tensor]:
    return graph.get_buffer(f"{layer}.running_mean"), graph.get_buffer(f"{layer}.running_var")


def test_a_step_with_moving_statistics_moves_every_layer_and_a_frozen_one_none(graph: GraphModule) -> None:
    before = norm_statistics(graph)
    set_training(graph, True, freeze_batch_norm=True)
    graph(IMAGES)
    assert moved_norms(before, norm_statistics(graph)) == ()
    set_training(graph, True)
    graph(IMAGES)
    assert {m.name for m in moved_norms(before, norm_statistics(graph))} == {"stem_norm", "depthwise_norm"}


def test_figures_by_hand_and_the_layer_that_moved_most_first(graph: GraphModule) -> None:
    mean, variance = buffers(graph, "depthwise_norm")
    mean.fill_(1.0)
    variance.fill_(4.0 - 1e-5)  # epsilon makes it 4
    stem_mean, _ = buffers(graph, "stem_norm")
    before = norm_statistics(graph)
    mean[::2] += 3.0  # half of the channels by 1.5 standard deviations
    variance.copy_(torch.full_like(variance, 4.0 * math.e) - 1e-5)
    stem_mean += 0.1
    first, second = moved_norms(before, norm_statistics(graph))
    assert (first.name, second.name) == ("depthwise_norm", "stem_norm")
    np.testing.assert_allclose([first.mean_shift, first.variance_log_ratio], [0.75, 1.0], rtol=1e-5)
    np.testing.assert_allclose([second.mean_shift, second.variance_log_ratio], [0.1, 0.0], rtol=1e-4)


def test_rounding_of_an_average_over_processes_is_no_move(graph: GraphModule) -> None:
    before = norm_statistics(graph)
    for layer in ("stem_norm", "depthwise_norm"):
        for buffer in buffers(graph, layer):
            buffer.mul_(1 + 2**-22)
    assert moved_norms(before, norm_statistics(graph)) == ()
