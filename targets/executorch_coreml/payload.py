"""Unpack the `.mlpackage` that the payload of a Core ML delegate holds into a folder.

The payload is ExecuTorch's flattened folder: the files' bytes, and after them, reversed, a JSON tree of their names,
offsets and sizes. Source: executorch/backends/apple/coreml/runtime/inmemoryfs. Its own reader, `executorchcoreml`,
follows names that lead out of the folder that it writes to; this one refuses them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
