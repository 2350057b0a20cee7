"""Which module made the first NaN or infinity: a model and the batch that broke it in, the module's name out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node


def first_nonfinite(module: nn.Module, images: Tensor) -> str | None:
    """Name of the first module (or graph node with its module) whose output is not finite for `images`.

    None when the forward pass is finite: then the loss or a gradient broke, not an activation.
    """
    with torch.no_grad():
        if isinstance(module, GraphModule):
            return _first_in_graph(module, images)
        return _first_in_modules(module, images)


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def _first_in_graph(graph: GraphModule, images: Tensor) -> str | None:
    found: list[str] = []

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if not found and n.op != "output" and not _finite(value):
                found.append(_describe(n))
            return value

    Watch(graph).run(images)
    return found[0] if found else None


def _describe(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    where = paths[-1].replace("L['self'].", "") if paths else ""
    return f"{where} ({node.name})" if where else node.name


def _first_in_modules(module: nn.Module, images: Tensor) -> str | None:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not found and not _finite(output):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in module.named_modules() if name]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
