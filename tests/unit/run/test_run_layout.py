"""Every file name of the run folder stands once in the program: in pipeline.run.layout."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pipeline
from pipeline.records.keys import ArtifactKey, CellKey
from pipeline.run import layout

PACKAGE = Path(pipeline.__file__).parent
#: Words that are folders of a run, and mean something else elsewhere.
ALSO_WORDS = {"artifacts", "checkpoint", "int8", "latest", "logits", "search", "train"}
#: Names of other people's files that are those of ours by chance, and where they stand.
OTHERS = {("models/download.py", "config.json")}  # of a repository of a timm model


def names() -> set[str]:
    """Paths in the constants of the module, and their parts."""
    paths: set[str] = set()
    for name, value in vars(layout).items():
        if name.isupper():
            paths |= {value} if isinstance(value, str) else set(value.values())
    return {part for path in paths for part in (path, *path.split("/"))} - ALSO_WORDS


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """String constants that are no docstrings."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_a_file_name_is_written_once() -> None:
    known = names()
    assert {"checkpoint/subject.json", "subject.json", "manifest.json", "report.html", "resume.pt"} <= known
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in literals(path):
            name = text.strip("/")
            if (str(path.relative_to(PACKAGE)), name) in OTHERS:
                continue
            if name in known or name.rpartition("/")[2] in known:
                found.setdefault(name.rpartition("/")[2], []).append(f"{path.relative_to(PACKAGE)}:{line}")
    assert {name: where for name, where in found.items() if len(where) > 1} == {}
    assert {where.split(":")[0] for places in found.values() for where in places} == {"run/layout.py"}


def test_files_are_named_for_what_they_hold() -> None:
    assert layout.artifact_name(ArtifactKey("tflite", "int8", "qat")) == "artifacts/tflite-int8.tflite"
    assert layout.artifact_name(ArtifactKey("tflite", "int8", "ptq")) == "artifacts/tflite-int8-ptq.tflite"
    assert layout.artifact_name(ArtifactKey("coreml", "fp16", "float")) == "artifacts/coreml-fp16.mlpackage"
    key = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "adb:0A1B")
    assert layout.logits_name(key) == "logits/tflite-litert-int8-qat-adb_0a1b.npz"
    assert layout.INT8["checkpoint/qdq.pt2"] == "checkpoint/int8/qdq.pt2"
    assert layout.resume_file("float") == "train/float/resume.pt"


def test_the_record_of_an_artifact_is_told_from_other_files() -> None:
    name = layout.artifact_name(ArtifactKey("tflite", "int8", "ptq"))
    assert layout.is_record(layout.record_name(name))
    assert not layout.is_record(name)
    assert not layout.is_record("latency.json")
