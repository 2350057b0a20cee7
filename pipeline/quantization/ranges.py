"""Activation ranges that call sites share, and ranges that are trained with the weights.

Learned step size quantization: Esser et al. 2020 (LSQ), with the offset of Bhalgat et al. 2020 (LSQ+).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pipeline.errors import TrainingError
from pipeline.quantization.fake_quantize import EdgeFakeQuantize
from pipeline.quantization.quantizer import AVERAGES, COPIES, aten


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


#: Results hold values of the inputs and maybe zeros, which every grid has.
KEEPING = (*COPIES, aten.cat.default, aten.pad.default, aten.constant_pad_nd.default)
SKIPPED = "skipped_fake_quantize"


def rounded_before(x: Tensor) -> Tensor:
    """Stands where a value is on its grid already."""
    return x


def count_once(graph: GraphModule) -> int:
    """In place; returns how many roundings were dropped.

    - A copy of rounded values is not rounded again, nor observed.
    - An average of rounded values is rounded, but not observed: it lies inside of their range.
    - Where several tensors are joined (concatenated), the range is that of all of them together.
    """
    sites = _sites(graph)
    first: dict[int, str] = {}
    sources: dict[int, int] = {}
    dropped = 0
    for node, module in sites.items():
        name = str(node.target)
        if _holds_rounded(node.args[0], module, sites, KEEPING):
            dropped += 1
            node.meta[SKIPPED] = name, first[id(module)]
            node.op, node.target = "call_function", rounded_before
            graph.delete_submodule(name)  # a copy of the graph would not have it either
            continue
        first.setdefault(id(module), name)
        if _holds_rounded(node.args[0], module, sites, (*KEEPING, *AVERAGES)):
            node.kwargs = {"observe": False}
        else:
            sources[id(module)] = sources.get(id(module), 0) + 1
    for module in sites.values():
        module.sources = sources[id(module)]
    graph.recompile()
    return dropped


def restore_sites(graph: GraphModule) -> None:
    """The inverse: torchao's `convert_pt2e` makes a quantize operator of every site."""
    for node in graph.graph.nodes:
        if SKIPPED in node.meta:
            name, source = node.meta.pop(SKIPPED)
            graph.add_submodule(name, graph.get_submodule(source))
            node.op, node.target = "call_module", name
        elif node.op == "call_module" and "observe" in node.kwargs:
            node.kwargs = {}
    graph.recompile()


def _sites(graph: GraphModule) -> dict[Node, EdgeFakeQuantize]:
    """In the order of the graph."""
    modules = dict(graph.named_modules(remove_duplicate=False))
    called = {n: modules[str(n.target)] for n in graph.graph.nodes if n.op == "call_module"}
    return {n: module for n, module in called.items() if isinstance(module, EdgeFakeQuantize)}


def _holds_rounded(
    value: object, module: EdgeFakeQuantize, sites: dict[Node, EdgeFakeQuantize], through: tuple[object, ...]
) -> bool:
    """Whether all tensors that `value` is made of were rounded by `module`, and only operators of `through` used."""
    if not isinstance(value, Node):
        return False
    if value in sites:
        return sites[value] is module
    if value.target not in through:
        return False
    tensors = [node for node in value.all_input_nodes if isinstance(node.meta.get("val"), Tensor) or node in sites]
    return bool(tensors) and all(_holds_rounded(node, module, sites, through) for node in tensors)
