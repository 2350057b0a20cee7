"""Files with integer weights on a network whose weights are most of the file: sizes, groups, distance to float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.quantization.graph import export
from targets import registry
from targets.coreml.target import TARGET as COREML
from targets.executorch.target import TARGET as EXECUTORCH
from targets.program import static_batch
from targets.tflite import convert as tflite
from targets.tflite.compress import compress
from targets.tflite.target import TARGET as TFLITE
from targets.types import ConvertRequest, GraphFacts, PackageOptions, Precision, TargetError

SIZE = (3, 16, 16)
STEM, UP, DOWN, HEAD = (64, 3, 4, 4), (1024, 64), (64, 1024), (10, 64)
WEIGHTS = sum(int(np.prod(shape)) for shape in (STEM, UP, DOWN, HEAD))
CHANNELS = sum(shape[0] for shape in (STEM, UP, DOWN, HEAD))


class Wide(nn.Module):
    """A patch embedding and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, stride=4)
        self.up, self.down, self.head = nn.Linear(64, 1024), nn.Linear(1024, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)  # [B, 16, 64]
        x = self.down(torch.nn.functional.gelu(self.up(x)))
        return self.head(x.mean(dim=1))


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return export(Wide().eval(), SIZE)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(program: torch.export.ExportedProgram, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = program.module()(torch.from_numpy(images)).numpy()
    return logits


@pytest.fixture(scope="module")
def float_file(program: torch.export.ExportedProgram) -> bytes:
    return tflite.lower(static_batch(program), "fp32")


def sqnr_db(logits: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((logits - expected) ** 2).sum()))


def scale_counts(facts: GraphFacts) -> list[int]:
    """How many scales each weight has."""
    return sorted(len(params.scale) for params in facts.quant_params)


def in_groups(size: int) -> list[int]:
    return [rows * columns // size for rows, columns in (UP, DOWN, HEAD)]


# Bits that integers save, scales taken off; the least distance to float is 5 to 10 dB below what was measured.
@pytest.mark.parametrize(
    ("precision", "group_size", "bits_saved", "least_db"),
    [
        ("w8", None, 24 * WEIGHTS - 32 * CHANNELS, 45),
        ("w4", None, 28 * WEIGHTS - 32 * CHANNELS, 22),
        ("int8-dynamic", None, 24 * WEIGHTS - 32 * CHANNELS, 40),
        ("w4a8-dynamic", None, 28 * WEIGHTS - 16 * WEIGHTS / 32, 22),
        ("w4a8-dynamic", 64, 28 * WEIGHTS - 16 * WEIGHTS / 64, 22),
    ],
)
def test_tflite_is_as_small_as_its_weights_and_near_float(
    precision: Precision,
    group_size: int | None,
    bits_saved: float,
    least_db: float,
    float_file: bytes,
    images: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(compress(float_file, precision, group_size))
    assert len(float_file) - path.stat().st_size == pytest.approx(bits_saved / 8, rel=0.04)
    facts = TFLITE.inspect(path)
    assert facts.float_weights == 0
    for runtime in registry.runtimes("tflite"):
        logits = TFLITE.load(path, runtime, threads=1).infer(images)
        assert least_db < sqnr_db(logits, expected) < 80, runtime  # above that nothing was rounded
    if precision == "w4a8-dynamic":
        assert scale_counts(facts) == sorted([STEM[0], *in_groups(group_size or 32)])
        assert facts.weights_by_dtype == {"int4": 3, "int8": 1}
    if precision != "w4":  # int4 with float activations is outside of the delegate
        assert facts.fallback == {}


def test_executorch_has_int4_in_groups(
    program: torch.export.ExportedProgram, images: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    sizes = {}
    for group_size in (32, 64):
        path = tmp_path / f"{group_size}.pte"
        options = PackageOptions(group_size=group_size)
        EXECUTORCH.convert(ConvertRequest(program, "w4a8-dynamic", path, {}, options))
        facts = EXECUTORCH.inspect(path)
        assert facts.weights_by_dtype == {"int4": 3, "int8": 1}
        assert scale_counts(facts) == sorted([STEM[0], *in_groups(group_size)])
        assert 20 < sqnr_db(EXECUTORCH.load(path, "executorch", 1).infer(images), expected) < 60
        sizes[group_size] = path.stat().st_size
    half_the_scales = 2 * (WEIGHTS - int(np.prod(STEM))) / 64
    assert sizes[32] - sizes[64] == pytest.approx(half_the_scales, rel=0.1)
    integers = WEIGHTS - int(np.prod(STEM))
    assert sizes[64] == pytest.approx(integers / 2 + half_the_scales, rel=0.4)  # and code, biases, the stem


def test_core_ml_has_int4_in_groups(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    path = tmp_path / "wide.mlpackage"
    COREML.convert(ConvertRequest(program, "w4", path, {}, PackageOptions(group_size=64)))
    facts = COREML.inspect(path)
    assert facts.weights_by_dtype == {"int4": 3, "int8": 1}
    assert scale_counts(facts) == sorted([STEM[0], *in_groups(64)])


def test_a_group_size_that_is_not_made_is_refused(float_file: bytes) -> None:
    with pytest.raises(TargetError, match="group size 48: tflite has one of 32, 64, 128, 256 in w4a8-dynamic"):
        compress(float_file, "w4a8-dynamic", 48)
    with pytest.raises(TargetError, match="group size 32: tflite has no groups in w8"):
        compress(float_file, "w8", 32)
