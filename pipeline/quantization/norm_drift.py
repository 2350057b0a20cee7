"""How far a training moved BatchNorm: the running statistics before and after it in, two figures for each layer out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.fx import GraphModule

from pipeline.quantization.graph import batch_norms
from pipeline.run.facts import MovedNorm

#: The mean of equal statistics over several processes differs from them by float32's rounding, 6e-8; training by more.
MOVED = 1e-5


class Statistics(NamedTuple):
    """Running mean and standard deviation [C] in float64, epsilon in it."""

    mean: Tensor
    deviation: Tensor


def norm_statistics(graph: GraphModule) -> dict[str, Statistics]:
    """Those of each BatchNorm of a graph of `prepare`, as they are now, by the layer's name."""
    found = {}
    for variance, options in batch_norms(graph).items():
        name = variance.removesuffix(".running_var")
        mean = graph.get_buffer(f"{name}.running_mean").double().cpu()
        found[name] = Statistics(mean, (graph.get_buffer(variance).double().cpu() + options.epsilon).sqrt())
    return found


def moved_norms(before: dict[str, Statistics], after: dict[str, Statistics]) -> tuple[MovedNorm, ...]:
    """The layers whose statistics differ, the one that moved most first."""
    moved = []
    for name, (mean, deviation) in before.items():
        shift = ((after[name].mean - mean).abs() / deviation).mean()
        log_ratio = 2 * (after[name].deviation / deviation).log().abs().mean()
        moved.append(MovedNorm(name, float(shift), float(log_ratio)))
    moved.sort(key=lambda m: -(m.mean_shift + m.variance_log_ratio))
    return tuple(m for m in moved if m.mean_shift + m.variance_log_ratio > MOVED)
