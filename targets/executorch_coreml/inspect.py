"""Read the facts of a `.pte` file with Core ML delegates: kernels, delegates, and the MIL program in each.

What a delegate holds is an `.mlpackage`, read by targets.coreml.inspect. Delegated operators are those of MIL; which
unit of a device runs them is decided there.

Unpack the `.mlpackage` that the payload of a Core ML delegate holds into a folder.

The payload is ExecuTorch's flattened folder: the files' bytes, and after them, reversed, a JSON tree of their names,
offsets and sizes. Source: executorch/backends/apple/coreml/runtime/inmemoryfs. Its own reader, `executorchcoreml`,
follows names that lead out of the folder that it writes to; this one refuses them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from targets.coreml.half_precision import float32_region
from targets.coreml.inspect import inspect as inspect_package
from targets.coreml.inspect import load_operations
from targets.executorch.inspect import boundary, read_container, read_pte, tally_kernels
from targets.executorch_coreml.runner import BACKEND
from targets.types import GraphFacts, TargetError, Unavailable


def inspect(path: Path) -> GraphFacts:
    """Facts of the file at `path`.

    Raises:
        Unavailable: no ExecuTorch or no coremltools here.
        TargetError: stage "inspect", the file is missing, damaged, or not a `.pte` for Core ML.
    """

    def facts(data: bytes) -> GraphFacts:
        try:
            return _facts(data)
        except Unavailable:  # no coremltools
            raise
        except TargetError as error:  # of the package inside
            raise TargetError("inspect", f"{path.name}: the model in its delegate: {error.cause}") from error

    return read_pte(path, facts, "ExecuTorch program for Core ML")


def _facts(data: bytes) -> GraphFacts:
    container = read_container(data)
    tally = tally_kernels(container.plan)
    inside = [_package_facts(container.payload(delegate, BACKEND)) for delegate in container.plan["delegates"]]
    delegated = _total(facts.operators for facts in inside)
    names = tally.float_weight_names + tuple(name for facts in inside for name in facts.float_weight_names)
    return GraphFacts(
        size_bytes=len(data),
        inputs=boundary(container.plan, "input"),
        outputs=boundary(container.plan, "output"),
        operators=dict(delegated + tally.fallback),
        delegated=delegated.total(),
        fallback=dict(tally.fallback),
        partitions=len(inside),
        int8_weights=tally.int8_weights + sum(facts.int8_weights for facts in inside),
        float_weights=len(names),
        float_weight_names=names,
        quant_params=tally.quant_params + tuple(params for facts in inside for params in facts.quant_params),
        operators_by_dtype=dict(_total(facts.operators_by_dtype for facts in inside)),
        weights_by_dtype=dict(_total(facts.weights_by_dtype for facts in inside)),
        cautions=tuple(dict.fromkeys(caution for facts in inside for caution in facts.cautions)),
    )


def _package_facts(payload: bytes) -> GraphFacts:
    """Of the package that one delegate holds.

    The backend has no precision by operator, so nothing keeps the official form's Performer in float32.
    """
    with tempfile.TemporaryDirectory(prefix="delegate-") as folder:
        package = write_package(payload, Path(folder))
        facts = inspect_package(package)
        _, operations = load_operations(package)
    region = [op for op in operations if op.op_type != "const" and float32_region(op)]
    half = [op.name for op in region if op.outputs[0].dtype.__name__ == "fp16"]
    if not half:
        return facts
    caution = (
        f"{len(half)} operators around the exponentials of Performer attention ({half[0]}, ...) compute in half "
        "precision, where the official form of a T2T-ViT divides zero by zero: convert the deploy form, or fp32."
    )
    return replace(facts, cautions=(*facts.cautions, caution))


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter[str]())


ROOT, PACKAGE, COMPILED = "lowered_module", "model.mlpackage", "model.mlmodelc"
#: Start of a payload that only names a model which several methods share.
_REFERENCE = b"CMJR"
_DIRECTORY = 1  # `kind` of a node; 0 is a file

Nodes = list[dict[str, Any]]


def write_package(payload: bytes, folder: Path) -> Path:
    """Write the package below `folder`.

    Returns:
        Its path.

    Raises:
        ValueError, LookupError, TypeError: the payload is damaged, foreign, or holds a compiled model.
    """
    if payload.startswith(_REFERENCE):
        raise ValueError("its Core ML model is shared by several methods, of which this project writes one")
    nodes = _nodes(payload)
    root = _child(nodes, nodes[-1], ROOT)
    if COMPILED in root["children"]:
        raise ValueError("its Core ML model is compiled, which only a Mac reads")
    path = folder / PACKAGE
    _write(payload, nodes, _child(nodes, root, PACKAGE), path)
    return path


def _nodes(payload: bytes) -> Nodes:
    """All files and folders; the last is the root, which may be the lowered module itself."""
    text = payload[::-1].decode("latin-1")  # JSON in ASCII, then bytes of any kind
    tree, _ = json.JSONDecoder().raw_decode(text)
    nodes: Nodes = tree["nodes"]
    if nodes[-1]["name"] == ROOT:
        nodes = [*nodes, {"name": "", "kind": _DIRECTORY, "children": {ROOT: len(nodes) - 1}}]
    return nodes


def _child(nodes: Nodes, folder: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in folder["children"]:
        raise ValueError(f"its payload has no {name}")
    return nodes[folder["children"][name]]


def _write(payload: bytes, nodes: Nodes, node: dict[str, Any], path: Path, depth: int = 0) -> None:
    if depth > 8:
        raise ValueError("its payload nests folders without end")
    if node["kind"] != _DIRECTORY:
        offset, size = int(node["dataRegion"]["offset"]), int(node["dataRegion"]["size"])
        if min(offset, size) < 0 or offset + size > len(payload):
            raise ValueError(f"its payload has {len(payload)} bytes and announces {node['name']} up to {offset + size}")
        path.write_bytes(payload[offset : offset + size])
        return
    path.mkdir()
    for name, index in node["children"].items():
        if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
            raise ValueError(f"its payload has a file named {name!r}, which leads out of the package")
        _write(payload, nodes, nodes[index], path / name, depth + 1)
