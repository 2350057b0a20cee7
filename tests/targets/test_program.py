"""The exported program: reading it, its input shape, its scales, and folded weights, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, SavedProgram

from targets import registry
from targets.program import (
    decomposed,
    fold_quantized_weights,
    input_shape,
    load_program,
    static_batch,
    trained_quant_params,
)
from targets.registry import UnknownTarget
from targets.types import TargetError


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a program", b"hello"])
def test_a_file_that_is_no_program_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "qdq.pt2"
    path.write_bytes(content)
    with pytest.raises(TargetError, match=r"qdq\.pt2 is not an exported program") as error:
        load_program(path)
    assert error.value.stage == "load"


def test_a_float_program_has_no_scales_and_takes_any_batch(programs: dict[str, SavedProgram]) -> None:
    program = load_program(programs["fp32"].path)
    assert input_shape(program) == INPUT_SIZE
    assert trained_quant_params(program) == {}
    assert program.module()(torch.zeros(3, *INPUT_SIZE)).shape[0] == 3


def test_weights_have_a_scale_for_each_output_channel(programs: dict[str, SavedProgram]) -> None:
    program = load_program(programs["int8"].path)
    module = program.module()
    per_channel = {n: p for n, p in trained_quant_params(program).items() if len(p.scale) > 1}
    assert len(per_channel) >= 7
    for name, params in per_channel.items():
        weight = module.get_parameter(name) if name in dict(module.named_parameters()) else module.get_buffer(name)
        assert len(params.scale) == len(weight), name
        assert set(params.zero_point) == {0}
        assert min(params.scale) >= 2.0**-16


@pytest.mark.parametrize("rewrite", [static_batch, fold_quantized_weights])
def test_one_image_gives_the_same_logits(rewrite, programs: dict[str, SavedProgram]) -> None:  # type: ignore[no-untyped-def]
    program = load_program(programs["int8"].path)
    image = torch.randn(1, *INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    single = rewrite(program)
    torch.testing.assert_close(single.module()(image), program.module()(image))
    assert trained_quant_params(program)  # the input program is as it was
    stored = [t.dtype for t in single.state_dict.values()] + [
        t.dtype for t in single.constants.values() if isinstance(t, torch.Tensor)
    ]
    assert (torch.int8 in stored) == (rewrite is fold_quantized_weights)


def test_an_unknown_target_is_told_with_the_nearest_name() -> None:
    with pytest.raises(UnknownTarget, match=r"'CoreMl'; did you mean 'coreml'\? \(known: executorch, coreml, tflite\)"):
        registry.get("CoreMl")
    with pytest.raises(UnknownTarget, match=r"unknown target 'xyz' \(known"):
        registry.get("xyz")


def test_a_slice_that_takes_everything_leaves_no_alias_for_coremltools() -> None:
    class Whole(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()[:, :3] * 2

    image = torch.randn(1, 3, 4, 4)
    program = torch.export.export(Whole(), (image,))
    alias = torch.ops.aten.alias.default
    assert alias in [node.target for node in program.run_decompositions({}).graph.nodes]
    core = decomposed(program)
    assert alias not in [node.target for node in core.graph.nodes]
    assert torch.equal(core.module()(image), image.relu() * 2)
