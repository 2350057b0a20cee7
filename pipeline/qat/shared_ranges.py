"""Call sites that share one range made to count once: a prepared graph in, the same graph with fewer roundings out.

Copies, concatenations and averages keep the scale of what they read, so one fake quantization module stands at several
places of the graph. torchao calls it in full at each of them. But values that it has rounded are not changed by being
copied and rounded again; and if it also observed them, its moving average would drift towards what comes last: behind
an average pooling, which makes values smaller, far too small for the layer before it.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule, Node

from pipeline.qat.fake_quantize import EdgeFakeQuantize
from pipeline.qat.quantizer import AVERAGES, COPIES, aten

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
