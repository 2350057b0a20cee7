"""The MIL reference as a whole: packages of the project against torch, rounding models, and what left its range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hybrid import SavedProgram

from targets.coreml.interpreter.arithmetic import (
    FP16,
    FP16_ACCUMULATE,
    FP32,
    Arithmetic,
    RangeCounts,
    Rounding,
    to_half,
)
from targets.coreml.interpreter.program import load_program
from targets.coreml.package import OUTPUT
from targets.coreml.units import SIMULATED
from targets.types import Unavailable
from targets.worker.host import HostWorker

#: Largest difference, of the largest logit; half precision has 11 bits, int8 values flip at rounding ties.
TOLERANCE = {"fp32": 1e-6, "fp16": 0.01, "int8": 0.06}


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    with HostWorker(timeout_s=300) as process:
        yield process


@pytest.fixture(scope="module", params=sorted(TOLERANCE))
def package(
    request: pytest.FixtureRequest,
    worker: HostWorker,
    programs: dict[str, SavedProgram],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str, SavedProgram]:
    precision, program = request.param, programs[request.param]
    path = tmp_path_factory.mktemp("reference") / f"{precision}.mlpackage"
    worker.convert("coreml", program.path, program.sha256, precision, path)
    return path, precision, program


@pytest.mark.parametrize("runtime", SIMULATED)
def test_every_rounding_model_is_near_torch(
    runtime: str, package: tuple[Path, str, SavedProgram], worker: HostWorker
) -> None:
    path, precision, program = package
    session = worker.open("coreml", path, runtime, threads=1)
    logits = session.infer(program.images)
    assert np.abs(logits - program.logits).max() < TOLERANCE[precision] * np.abs(program.logits).max()
    assert np.array_equal(session.infer(program.images[::-1])[::-1], logits)
    events = session.range_events()
    assert events is not None
    assert not [e for e in events if e.kind in ("nan", "overflowed")]
    with pytest.raises(Unavailable, match="no latency"):
        session.time(program.images, 1)
    session.close()


def test_rounding_models_differ_where_the_file_is_in_half_precision(package: tuple[Path, str, SavedProgram]) -> None:
    path, precision, program = package
    loaded = load_program(path)
    images = [image[None] for image in program.images]
    seen = [[loaded.predict({"images": i}, model)[OUTPUT] for i in images] for model in (FP32, FP16, FP16_ACCUMULATE)]
    same = [np.array_equal(seen[0], other) for other in seen[1:]]
    assert same == [precision == "fp32"] * 2
    assert np.array_equal(seen[1], seen[2]) == (precision == "fp32")


def one_by_one(values: np.ndarray) -> np.float16:
    """The sum of half precision numbers, rounded after each addition."""
    total = np.float16(0)
    for value in values:
        total = np.float16(np.float32(total) + np.float32(value))
    return total


ONE = Arithmetic(Rounding("one", half_storage=True, half_sums=True, terms=1), half=True)


def test_a_sum_in_half_precision_is_the_running_sum() -> None:
    values = np.random.default_rng(0).uniform(0, 8, (3, 2000)).astype(np.float16)
    sums = ONE.total(torch.from_numpy(values.astype(np.float32)), [1])
    expected = np.array([one_by_one(row) for row in values], np.float32)
    assert np.array_equal(sums.numpy(), expected)
    assert abs(expected - values.astype(np.float64).sum(1)).max() > 8  # it is no better than it has to be


def test_a_product_in_half_precision_is_a_running_sum_of_exact_products() -> None:
    random = np.random.default_rng(1)
    x, y = random.standard_normal((4, 50)), random.standard_normal((50, 3))
    x, y = x.astype(np.float16).astype(np.float32), y.astype(np.float16).astype(np.float32)
    expected = np.zeros((4, 3), np.float32)
    for k in range(50):
        expected = (expected + x[:, k : k + 1] * y[k]).astype(np.float16).astype(np.float32)
    assert np.array_equal(ONE.product(torch.from_numpy(x), torch.from_numpy(y)).numpy(), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_in_half_precision_is_near_the_exact_one(groups: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = to_half(torch.randn(1, 4, 9, 8, generator=generator))
    weight = to_half(torch.randn(8, 4 // groups, 3, 2, generator=generator))
    exact = torch.nn.functional.conv2d(x.double(), weight.double(), None, (2, 1), 0, (1, 2), groups)
    seen = Arithmetic(FP16_ACCUMULATE, half=True).convolve(x, weight, (2, 1), (1, 2), groups)
    assert seen.shape == exact.shape
    assert torch.equal(seen, to_half(seen))
    assert (seen - exact).abs().max() < 4e-3 * exact.abs().max()
    assert not torch.equal(seen, Arithmetic(FP16, half=True).convolve(x, weight, (2, 1), (1, 2), groups))


def test_float32_tensors_are_not_rounded_by_any_model() -> None:
    x = torch.tensor([1 + 2.0**-20, 1e6])
    assert torch.equal(Arithmetic(FP16_ACCUMULATE, half=False).store(x), x)
    assert Arithmetic(FP16, half=True).store(x).tolist() == [1.0, float("inf")]


def test_rounding_to_half_precision_is_to_the_nearest_even() -> None:
    x = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-25, 3 * 2.0**-25, 65519.0, 65520.0, -0.0])
    assert to_half(x).tolist() == [1, 1 + 2.0**-9, 0, 2.0**-23, 65504.0, float("inf"), 0]


def test_what_left_its_range_is_counted_at_the_operator_and_nan_only_where_it_begins() -> None:
    ranges = RangeCounts()
    large, ratio = (Arithmetic(FP16, True, name, name, ranges) for name in ("large", "ratio"))
    infinite = large.store(torch.tensor([1e5, 2.0, 1e-9]))
    broken = ratio.store(infinite - infinite)
    ratio.store(broken * 2)
    assert ranges.counts == {
        ("large", "large", "overflowed"): 1,
        ("large", "large", "vanished"): 1,
        ("ratio", "ratio", "nan"): 1,
    }
    ranges.poisoned = False  # another image
    ratio.store(broken)
    assert ranges.counts["ratio", "ratio", "nan"] == 2


def test_how_a_performer_dies_in_half_precision(tmp_path: Path) -> None:
    """exp(-14) vanishes in part, its divisor is zero, and 0 / 0 is no number: told by operator, not by a bad logit."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4))], opset_version=ct.target.iOS17)
    def attention(x):  # type: ignore[no-untyped-def]
        powers = mb.exp(x=x, name="powers")
        return mb.real_div(x=powers, y=mb.reduce_sum(x=powers, axes=[1], keep_dims=True), name="logits")

    model = ct.convert(
        attention, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17, skip_model_load=True
    )
    model.save(str(tmp_path / "dies.mlpackage"))
    program = load_program(tmp_path / "dies.mlpackage")
    image = {"x": np.full((1, 4), -18, np.float32)}
    ranges = RangeCounts()
    alive, dead = program.predict(image, FP32), program.predict(image, FP16, ranges)
    assert alive["logits"].tolist() == [[0.25] * 4]
    assert np.isnan(dead["logits"]).all()
    assert ranges.counts[next(key for key in ranges.counts if key[1:] == ("exp", "vanished"))] == 4
    assert [key[1] for key in ranges.counts if key[2] == "nan"] == ["real_div"]
