"""Learning-rate schedule and steps by hand figures; numbers that no training can have are refused by name."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.qat.plan import TrainPlan


def test_warm_up_is_linear_and_the_rest_half_a_cosine() -> None:
    plan = TrainPlan(lr=1.0, warmup_fraction=0.2)
    rates = [plan.lr_at(step, 20) for step in range(20)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)  # half-way between step 4 and step 20
    assert rates[16] == pytest.approx(0.5 * (1 - 2**-0.5))  # three quarters: cos 135 degrees
    assert 0 < rates[-1] < 0.01
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_one_step_trains_at_full_rate() -> None:
    assert TrainPlan(lr=0.3).lr_at(0, 1) == 0.3


@pytest.mark.parametrize(
    ("images", "batch_size", "max_steps", "steps"),
    [
        (64, 32, None, 2),
        (66, 32, None, 3),
        (65, 32, None, 2),
        (1437, 32, None, 45),
        (1437, 32, 20, 20),
        (1, 32, None, 0),
    ],
)
def test_steps_of_an_epoch(images: int, batch_size: int, max_steps: int | None, steps: int) -> None:
    """A last batch of one image is left out."""
    assert TrainPlan(batch_size=batch_size, max_steps=max_steps).steps_per_epoch(images) == steps


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": -1}, "--epochs is -1: give at least 0"),
        ({"batch_size": 1}, "--batch-size is 1: give at least 2"),
        ({"max_steps": 0}, "--max-steps is 0"),
        ({"lr": 0.0}, "--lr is 0.0: give a number above 0"),
        ({"lr": float("inf")}, "--lr is inf"),
        ({"clip_norm": float("nan")}, "--clip-norm is nan"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1"),
        ({"label_smoothing": 1.5}, "--label-smoothing is 1.5: give a number from 0.0 to 1.0"),
        ({"observer_freeze": -0.2}, "--observer-freeze is -0.2"),
        ({"scale_min": 0.0}, "--scale-min is 0.0"),
        ({"epochs": 2, "half_size_epochs": 3}, "--half-size-epochs is 3: give a number from 0 to 2"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_impossible_numbers_are_named(values: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainPlan(**values)  # type: ignore[arg-type]
