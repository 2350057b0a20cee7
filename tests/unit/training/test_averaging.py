"""The moving average of weights against its recursion by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.training.resume_point import WeightAverage


def module(value: float) -> nn.Module:
    linear = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        linear.weight.fill_(value)
    return linear


def weight(linear: nn.Module) -> float:
    return float(next(linear.parameters()))


def test_the_average_follows_the_recursion_with_its_warm_up() -> None:
    linear = module(1.0)
    average = WeightAverage(linear, 0.9)
    expected = 1.0
    for step, value in enumerate([2.0, 4.0, 8.0] + [16.0] * 100, start=1):
        with torch.no_grad():
            linear.weight.fill_(value)  # type: ignore[operator,union-attr]
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert weight(linear) == pytest.approx(expected, rel=1e-5)
    assert weight(linear) == 16.0
    average.keep()
    assert weight(linear) == pytest.approx(expected, rel=1e-5)


def test_without_a_decay_the_last_weights_stay() -> None:
    linear = module(1.0)
    average = WeightAverage(linear, 0.0)
    with torch.no_grad():
        linear.weight.fill_(5.0)  # type: ignore[operator,union-attr]
    average.update()
    with average.applied():
        assert weight(linear) == 5.0
    average.keep()
    assert weight(linear) == 5.0


def test_an_average_goes_on_from_its_state() -> None:
    linear, other = module(1.0), module(9.0)
    first, second = WeightAverage(linear, 0.5), WeightAverage(other, 0.5)
    for value in (2.0, 3.0):
        with torch.no_grad():
            linear.weight.fill_(value)  # type: ignore[operator,union-attr]
        first.update()
    second.load_state_dict(first.state_dict())
    for average, owner in ((first, linear), (second, other)):
        with torch.no_grad():
            owner.weight.fill_(7.0)  # type: ignore[operator,union-attr]
        average.update()
    first.keep()
    second.keep()
    assert weight(linear) == weight(other)
