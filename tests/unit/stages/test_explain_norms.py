"""`validate --explain` names the layers in which BatchNorm moved, where accuracy went in training."""

from __future__ import annotations

import numpy as np

from pipeline.drift.waterfall import ScoredStage
from pipeline.run.facts import MovedNorm, QuantizationFacts
from pipeline.stages.explain import moved_norms_note

LABELS = np.array([0, 0, 1, 1])
RIGHT = 4 * np.eye(2)[LABELS]
MOVED = tuple(MovedNorm(f"layer{i}", 1.5 - 0.1 * i, 0.7) for i in range(7))


def chain(deploy: np.ndarray, trained: np.ndarray, fake_quant: np.ndarray) -> list[ScoredStage]:
    logits = {"official": deploy, "deploy": deploy, "trained": trained, "fake_quant": fake_quant, "qdq": fake_quant}
    names = list(logits)
    return [ScoredStage(name, previous, logits[name]) for name, previous in zip(names, [None, *names], strict=False)]


def test_a_lost_answer_is_laid_to_the_layers_that_moved_most() -> None:
    worse = RIGHT[[2, 1, 2, 3]]
    (note,) = moved_norms_note(MOVED, chain(RIGHT, worse, worse), LABELS)
    assert note.startswith("trained: top-1 drops by 25.00 pp (1 lost, 0 gained of 4), KL ")
    assert "7 BatchNorm layers, most in layer0 (mean 1.5 standard deviations, variance a factor of 2)" in note
    assert "layer4" in note
    assert "layer5" not in note
    assert "--batch-norm-freeze 0" in note


def test_the_largest_divergence_is_named_without_a_lost_answer() -> None:
    assert len(moved_norms_note(MOVED, chain(RIGHT, RIGHT / 2, RIGHT / 2), LABELS)) == 1
    rounding_costs_more = chain(RIGHT, RIGHT / 1.1, RIGHT / 4)
    assert moved_norms_note(MOVED, rounding_costs_more, LABELS) == []


def test_nothing_is_said_where_nothing_moved_or_training_gained() -> None:
    worse = RIGHT[[2, 1, 2, 3]]
    assert moved_norms_note((), chain(RIGHT, worse, worse), LABELS) == []
    assert moved_norms_note(MOVED, chain(worse, RIGHT, RIGHT), LABELS) == []


def test_what_moved_counts_where_the_trained_graph_was_kept() -> None:
    moved = {"moved_norms": [{"name": "stem", "mean_shift": 0.5, "variance_log_ratio": 0.25}]}
    assert QuantizationFacts({}, {}, {"qat": {"epochs": 1}, **moved}).moved_norms == (MovedNorm("stem", 0.5, 0.25),)
    assert QuantizationFacts({}, {}, {"kept": {"trained": False}, **moved}).moved_norms == ()
    assert QuantizationFacts({}).moved_norms == ()
