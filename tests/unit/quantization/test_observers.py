"""Activation observers against brute force and hand figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_hybrid import INPUT_SIZE
from torch import nn

from pipeline.errors import TrainingError
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare
from pipeline.quantization.observers import OBSERVERS, SCALE_EPSILON, MeanSquaredErrorObserver, PercentileObserver
from pipeline.quantization.quantizer import Scheme


def make(kind: type = MeanSquaredErrorObserver) -> MeanSquaredErrorObserver:
    return kind(dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=SCALE_EPSILON)


def error_of(x: torch.Tensor, low: float, high: float) -> float:
    """Mean squared error of affine int8 over [low, high], written out."""
    scale = (high - low) / 255
    zero_point = round(-128 - low / scale)
    q = torch.clamp(torch.round(x / scale) + zero_point, -128, 127)
    return float((((q - zero_point) * scale) - x).square().mean())


def test_mse_observer_clips_rare_values_and_is_as_good_as_brute_force() -> None:
    x = torch.randn(60_000, generator=torch.Generator().manual_seed(0)) ** 3  # rare large values
    top = float(x.max())
    observer = make()
    observer(x)
    low, high = float(observer.min_val), float(observer.max_val)
    assert high < 0.95 * top
    assert error_of(x, low, high) < error_of(x, float(x.min()), top)
    best = min(error_of(x, float(x.min()) * c, top * c) for c in torch.linspace(1.0, 0.3, 32).tolist())
    assert error_of(x, low, high) == pytest.approx(best, rel=0.02)


def test_mse_observer_averages_over_batches() -> None:
    observer = make()
    observer(torch.linspace(-1, 1, 1001))
    observer(torch.linspace(-3, 3, 1001))
    # 1 + 0.01 * (3 - 1), the averaging constant of torch's moving average observers
    assert float(observer.max_val) == pytest.approx(1.02, abs=0.01)


def test_percentile_observer_leaves_a_ten_thousandth_out_at_either_end() -> None:
    x = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    observer = PercentileObserver(dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine)
    observer(x)
    low, high = np.quantile(x.numpy(), [1e-4, 1 - 1e-4])
    assert float(observer.min_val) == pytest.approx(low, rel=1e-3)
    assert float(observer.max_val) == pytest.approx(high, rel=1e-3)
    observer(2 * x)
    assert float(observer.max_val) == pytest.approx(1.01 * high, rel=1e-3)  # a hundredth of the way to the second batch


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_gives_a_finite_scale_even_for_zeros(name: str) -> None:
    fake_quantize = OBSERVERS[name](dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine)
    fake_quantize(torch.zeros(4, 8))
    scale, zero_point = fake_quantize.calculate_qparams()
    assert float(scale) == pytest.approx(SCALE_EPSILON)
    assert -128 <= int(zero_point) <= 127


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_covers_a_uniform_range(name: str) -> None:
    fake_quantize = OBSERVERS[name](dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine)
    fake_quantize(torch.linspace(-2, 6, 4096))
    scale, zero_point = fake_quantize.calculate_qparams()
    assert float(scale) == pytest.approx(8 / 255, rel=0.05)
    assert int(zero_point) == pytest.approx(-64, abs=4)


def test_every_batch_of_the_calibration_counts_alike() -> None:
    graph = prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 32 * 32, 2)), INPUT_SIZE, Scheme())
    batches = [torch.full((2, *INPUT_SIZE), value) for value in (1.0, 2.0, 6.0)]
    calibrate(graph, batches, 6, torch.device("cpu"))
    first = graph.get_submodule("activation_post_process_0").activation_post_process
    assert float(first.max_val) == pytest.approx(3.0)
    assert first.averaging_constant == pytest.approx(0.01), "training goes on with the moving average"


def test_calibration_without_images_is_refused() -> None:
    graph = prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 32 * 32, 2)), INPUT_SIZE, Scheme())
    with pytest.raises(TrainingError, match="without images"):
        calibrate(graph, [], 0, torch.device("cpu"))
