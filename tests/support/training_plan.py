"""A training plan for tests that are about a few of its numbers."""

from __future__ import annotations

from typing import Any

from pipeline.training.plan import TrainPlan


def train_plan(**numbers: Any) -> TrainPlan:
    """A float training on the cross-entropy alone, but for `numbers`."""
    others: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 32,
        "lr": 1e-4,
        "weight_decay": 0.03,
        "warmup_fraction": 0.1,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "seed": 0,
        "hflip": True,
        "scale_min": 0.6,
        "max_steps": None,
        "observer_freeze": 0.6,
        "batch_norm_freeze": 0.5,
        "half_size_epochs": 0,
        "accumulate": 1,
        "ema": 0.0,
        "dropout": True,
        "distill": 0.0,
        "temperature": 2.0,
        "distill_features": 0.0,
        "ranges": "observed",
        "range_lr": 10.0,
    }
    return TrainPlan(**(others | numbers))
