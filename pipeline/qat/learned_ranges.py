"""Activation ranges that are trained with the weights: a calibrated graph in, the same graph with range parameters out.

Learned step size quantization: Esser et al. 2020 (LSQ), with the offset of Bhalgat et al. 2020 (LSQ+).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.fx import GraphModule

from pipeline.errors import TrainingError
from pipeline.qat.fake_quantize import EdgeFakeQuantize


def learn_ranges(graph: GraphModule) -> int:
    """Make parameters of the activation ranges of a calibrated graph; what shared a range goes on sharing it.

    The ranges move while observers are enabled (`set_observers`), and stand still while they are not.

    Returns:
        how many ranges are trained from now on.

    Raises:
        TrainingError: a range was never calibrated; nothing was changed.
    """
    modules = [module for _, module in activations(graph) if module.log_scale is None]
    for name, module in activations(graph):
        if not bool(module.activation_post_process.min_val.isfinite().all()):
            raise TrainingError(
                f"learned ranges start from calibrated ones, and {name} has seen nothing: calibrate first"
            )
    for module in modules:
        module.learn()
    return len(modules)


def range_parameters(graph: nn.Module) -> list[nn.Parameter]:
    """Those that `learn_ranges` made, each once; empty for a graph without."""
    both = [p for _, module in activations(graph) for p in (module.log_scale, module.offset)]
    return [p for p in both if p is not None]


def freeze_learned(graph: nn.Module) -> int:
    """Turn trained ranges back into plain scales and integer zero points; returns how many were trained."""
    modules = [module for _, module in activations(graph) if module.log_scale is not None]
    for module in modules:
        module.freeze()
    return len(modules)


def ranges(graph: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Scale and zero point, both [1], of every activation that is rounded, by the name of its module."""
    return {name: module.calculate_qparams() for name, module in activations(graph)}


def activations(graph: nn.Module) -> Iterator[tuple[str, EdgeFakeQuantize]]:
    """Each once, by its first name."""
    for name, module in graph.named_modules():
        if isinstance(module, EdgeFakeQuantize) and not module.is_per_channel:
            yield name, module
