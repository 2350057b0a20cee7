"""The table of schemes: whole, told to the user, and equal to what stands in the documentation."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config import Wishes
from pipeline.errors import UsageError
from pipeline.quantization.graph import prepare, set_observers, to_qdq_program
from pipeline.quantization.observers import SCALE_EPSILON
from pipeline.quantization.quantizer import Scheme
from pipeline.records.keys import ArtifactKey, CellKey
from pipeline.report.page import GLYPHS
from pipeline.report.plots.panels import MARKERS
from pipeline.report.tables.artifacts import scheme_words
from pipeline.stages.convert import check_wishes, plan_cells
from targets import registry
from targets.target import ALIASES, Target
from targets.types import PRECISIONS, STATIC, PackageOptions

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "convert.md"


@pytest.mark.parametrize("target", registry.everyone(), ids=lambda target: target.name)
def test_every_target_has_a_word_for_every_precision(target: Target) -> None:
    assert target.schemes.target == target.name
    assert tuple(target.schemes.by_precision) == PRECISIONS
    assert target.schemes.made == tuple(p for p in PRECISIONS if not target.schemes.why_not(p))


@pytest.mark.parametrize("target", registry.everyone(), ids=lambda target: target.name)
def test_what_a_target_declares_makes_sense(target: Target) -> None:
    assert target.options <= {field.name for field in dataclasses.fields(PackageOptions)}
    for support in target.schemes.by_precision.values():
        assert support.words
        assert support.made or not support.group_sizes


def test_no_target_is_named_outside_its_folder() -> None:
    """What a target has, it declares (targets.target.Target): nothing else compares with a target's name."""
    found = []
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "targets" / "worker").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                constants = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
                found += [f"{path.name}:{node.lineno}" for name in registry.variants() if name in constants]
    assert not found


def test_the_documentation_has_the_table() -> None:
    lines = [f"| precision | {' | '.join(registry.variants())} |", "|---" * (len(registry.variants()) + 1) + "|"]
    for precision in PRECISIONS:
        names = ", ".join(f"`{alias}`" for alias, meant in ALIASES.items() if meant == precision)
        cells = " | ".join(scheme_words(target.schemes[precision]) for target in registry.everyone())
        lines.append(f"| `{precision}`{f' ({names})' if names else ''} | {cells} |")
    assert "\n".join(lines) in DOCS.read_text()


def test_an_unsupported_precision_is_refused_with_its_reason_when_nothing_remains() -> None:
    with pytest.raises(UsageError) as caught:
        plan_cells(["executorch", "coreml"], ["w8a16"], from_float=False, say=pytest.fail)
    said = str(caught.value)
    assert "executorch is not converted in w8a16: XNNPACK has no int16 activations" in said
    assert "coreml is not converted in w8a16: the quantize operator gives int8 and uint8 only" in said


def test_only_int8_has_a_trained_program() -> None:
    wanted = [
        ArtifactKey("tflite", "int8", "qat"),
        ArtifactKey("tflite", "w8a16", "ptq"),
        ArtifactKey("tflite", "int8-dynamic", "float"),
    ]
    assert plan_cells(["tflite"], ["int8", "w8a16", "int8-dynamic"], from_float=False, say=pytest.fail) == wanted
    for cell in wanted:  # the records take it
        CellKey("m", cell.target, "litert", cell.precision, cell.source, "host")
    with pytest.raises(ValueError, match="w8a16 from source float"):
        CellKey("m", "tflite", "litert", "w8a16", "float", "host")


@pytest.mark.parametrize(
    ("size", "targets", "precisions", "says"),
    [
        (64, ["tflite"], ["w4"], "no file asked for has groups; those that have are w4a8-dynamic of executorch"),
        (16, ["tflite", "coreml"], ["w4", "w4a8-dynamic"], "tflite has one of 32, 64, 128, 256 in w4a8-dynamic"),
        (48, ["coreml"], ["w4"], "coreml has one of 16, 32, 64, 128, 256 in w4"),
    ],
)
def test_a_group_size_that_no_file_can_have_is_refused(
    size: int, targets: list[str], precisions: list[str], says: str
) -> None:
    cells = plan_cells(targets, precisions, from_float=False, say=lambda line: None)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        check_wishes(Wishes(group_size=size), cells, pytest.fail)
    assert says in str(caught.value)
    check_wishes(
        Wishes(group_size=32), [ArtifactKey("coreml", "w4", "float"), ArtifactKey("coreml", "int8", "qat")], pytest.fail
    )


def test_every_variant_has_a_marker_of_its_own_and_the_page_knows_it() -> None:
    variants = [p if p not in STATIC else f"{p} ptq" for p in PRECISIONS]
    markers = [MARKERS[variant] for variant in variants]
    assert len(set(markers)) == len(markers)
    assert set(MARKERS.values()) == set(GLYPHS)


def test_sixteen_bits_are_symmetric_and_reach_to_the_largest_value() -> None:
    torch.manual_seed(0)
    graph = prepare(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), (3, 4, 4), Scheme(activation_bits=16))
    images = torch.rand(8, 3, 4, 4)  # none below zero: an asymmetric range would begin at zero
    images[0, 0, 0, 0] = 2.0
    set_observers(graph, True)
    graph(images)
    program = to_qdq_program(graph, (3, 4, 4))
    quantize = [n for n in program.graph.nodes if str(n.target).endswith("quantize_per_tensor.default")]
    for node in quantize:
        assert node.args[2:] == (0, -32767, 32767, torch.int16)
    assert quantize[0].args[1] == pytest.approx(2.0 / 32767)
    expected = graph(images).detach()
    assert torch.allclose(program.module()(images), expected, atol=1e-6)

    tiny = prepare(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), (3, 4, 4), Scheme(activation_bits=16))
    set_observers(tiny, True)
    tiny(torch.full((8, 3, 4, 4), 1e-9))
    first = next(n for n in to_qdq_program(tiny, (3, 4, 4)).graph.nodes if "quantize_per_tensor" in str(n.target))
    assert first.args[1] == SCALE_EPSILON / 256


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="8-bit weights with 4-bit activations"):
        Scheme(activation_bits=4)
