"""Which operators of an fp16 Core ML package stay float32: the way through the Performer's exponentials, only that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.models.t2t_vit import Attention, TokenPerformer
from pipeline.quantization.graph import export
from targets.coreml.inspect import load_operations
from targets.coreml.target import TARGET as COREML
from targets.types import ConvertRequest


class Tokens(nn.Module):
    """Pixels as tokens through one Performer and one softmax attention, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.performer = TokenPerformer(dim=3, token_dim=8)
        self.attention = Attention(8, 2, None)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.performer(x.flatten(2).transpose(1, 2))
        return self.head(self.attention(tokens).mean(dim=1))


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list:  # type: ignore[type-arg]
    torch.manual_seed(0)
    program = export(Tokens().eval(), (3, 8, 8))
    output = Path(tmp_path_factory.mktemp("package")) / "tokens.mlpackage"
    COREML.convert(ConvertRequest(program, "fp16", output))
    return load_operations(output)[1]


def dtypes(operations: list, kind: str) -> list[str]:  # type: ignore[type-arg]
    found = [op.outputs[0].dtype.__name__ for op in operations if op.op_type == kind]
    assert found, f"no {kind} in the package"
    return found


def test_exponentials_and_division_are_float32(operations: list) -> None:  # type: ignore[type-arg]
    assert set(dtypes(operations, "exp")) == {"fp32"}
    assert set(dtypes(operations, "real_div")) == {"fp32"}


def test_sums_between_them_are_float32(operations: list) -> None:  # type: ignore[type-arg]
    """Every matmul, einsum or reduction that an exponential feeds before the division."""
    between = [op for op in operations if op.op_type in ("matmul", "einsum", "reduce_sum") and reads_exponential(op)]
    assert len(between) >= 3  # the sum of keys, keys times values, queries times both
    assert {op.outputs[0].dtype.__name__ for op in between} == {"fp32"}


def reads_exponential(operation) -> bool:  # type: ignore[no-untyped-def]
    pending, seen = [operation], set()
    while pending:
        current = pending.pop()
        for value in current.inputs.values():
            for variable in value if isinstance(value, (list, tuple)) else [value]:
                before = getattr(variable, "op", None)
                if before is None or before.name in seen or before.op_type in ("real_div", "linear", "softmax"):
                    continue
                if before.op_type == "exp":
                    return True
                seen.add(before.name)
                pending.append(before)
    return False


def test_everything_else_is_half_precision(operations: list) -> None:  # type: ignore[type-arg]
    for kind in ("linear", "softmax", "layer_norm", "gelu"):
        assert set(dtypes(operations, kind)) == {"fp16"}, kind


def test_the_boundary_is_float32(operations: list) -> None:  # type: ignore[type-arg]
    casts = [op for op in operations if op.op_type == "cast"]
    assert casts[0].outputs[0].dtype.__name__ == "fp16"  # float32 images come in
    assert casts[-1].outputs[0].dtype.__name__ == "fp32"  # float32 logits go out
    assert np.prod(casts[-1].outputs[0].shape) == 4
