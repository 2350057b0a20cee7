"""Which of two graphs becomes the checkpoint: the figures by hand, the divergence by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from pipeline.quantization.kept import Kept, choose


def answers(right: int, n: int, margin: float = 4.0) -> np.ndarray:
    """Logits [n, 2] whose first `right` rows say 0."""
    logits = np.zeros((n, 2), np.float32)
    logits[:right, 0] = margin
    logits[right:, 1] = margin
    return logits


def chosen(calibrated: np.ndarray, trained: np.ndarray, keep: str = "better") -> Kept:
    n = len(trained)
    return choose(answers(n, n), calibrated, trained, np.zeros(n, np.int64), keep)


def test_both_scores_are_told() -> None:
    kept = chosen(answers(38, 40), answers(20, 40))
    assert (kept.n, kept.calibrated_right, kept.trained_right, kept.lost, kept.gained) == (40, 38, 20, 18, 0)
    reference, trained = softmax(answers(40, 40), axis=1), softmax(answers(20, 40), axis=1)
    assert kept.trained_kl == pytest.approx(np.mean([entropy(*pair) for pair in zip(reference, trained, strict=True)]))
    assert "95.00 % by calibration alone, 50.00 % after QAT (n=40, 18 lost, 0 gained)" in kept.told()
    assert "the calibrated graph is kept" in kept.told()


def test_a_loss_is_not_kept_unless_asked_for() -> None:
    calibrated, trained = answers(40, 40), answers(39, 40)
    assert not chosen(calibrated, trained).trained
    kept = chosen(calibrated, trained, keep="trained")
    assert kept.trained
    assert "the trained graph is kept" in kept.told()


def test_as_good_is_kept_trained() -> None:
    assert chosen(answers(30, 40), answers(30, 40)).trained
    assert chosen(answers(30, 40), answers(31, 40)).trained


def test_answers_that_are_not_finite_are_never_kept() -> None:
    trained = answers(40, 40)
    trained[3] = np.nan
    kept = chosen(answers(40, 40), trained)
    assert (kept.trained, kept.trained_kl, kept.lost) == (False, None, 1)
    wrong = answers(39, 40)
    wrong[39] = np.nan  # an image that the calibrated graph gets wrong too
    assert not chosen(answers(39, 40), wrong).trained
    assert chosen(wrong, wrong).trained  # neither is any better
