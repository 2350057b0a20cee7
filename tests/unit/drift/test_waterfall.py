"""The waterfall's figures against scipy, statistics by hand, and the definitions of the pairwise metrics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from pipeline.metrics.accuracy import agreement
from pipeline.metrics.drift import StepRecord, agreement_matrix, kl_divergence, margins, most_moved, step


def noisy(seed: int, n: int = 40, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, classes)).astype(np.float32) * 3
    return first, first + rng.normal(size=first.shape).astype(np.float32) * 0.5


def test_kl_is_scipys_and_has_a_direction() -> None:
    first, other = noisy(0)
    p, q = (softmax(x.astype(np.float64), axis=1) for x in (first, other))
    np.testing.assert_allclose(kl_divergence(first, other), entropy(p, q, axis=1), rtol=1e-9)
    assert not np.allclose(kl_divergence(first, other), kl_divergence(other, first), rtol=1e-3)
    assert (kl_divergence(first, first) == 0).all()


def test_kl_by_hand() -> None:
    # p = (0.8, 0.2), q = (0.5, 0.5): 0.8 ln 1.6 + 0.2 ln 0.4
    first, other = np.log([[0.8, 0.2]]), np.zeros((1, 2))
    assert kl_divergence(first, other)[0] == pytest.approx(0.19274475702)


def test_kl_of_logits_far_apart_is_finite_and_one_that_is_not_finite_is_not_measured() -> None:
    first = np.array([[3e38, -3e38], [0, 1], [np.inf, 0]], np.float32)
    other = np.array([[-3e38, 3e38], [np.nan, 1], [1, 0]], np.float32)
    found = kl_divergence(first, other)
    assert np.isfinite(found[0])
    assert found[0] > 1e38
    assert np.isnan(found[1:]).all()


def test_rows_beyond_one_chunk_are_all_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = noisy(1)
    whole = kl_divergence(first, other)
    monkeypatch.setattr("pipeline.metrics.drift.ROWS", 7)
    np.testing.assert_array_equal(kl_divergence(first, other), whole)


def test_margin_is_to_the_best_other_class() -> None:
    logits = np.array([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0], [2.0, 2.0, 0.0]])
    np.testing.assert_array_equal(margins(logits, np.array([1, 2, 0])), [2.0, -2.0, 0.0])
    assert logits[0, 1] == 5.0  # the input is left alone


def test_a_step_by_hand() -> None:
    before = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], np.float32)
    after = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [2.0, 0.0]], np.float32)
    labels = np.array([0, 0, 0, 1])  # right, right -> wrong, wrong -> right, wrong
    found = step(before, after, labels)
    assert (found.change.lost, found.change.gained, found.change.n) == (1, 1, 4)
    assert found.drift.agreement_same == 2
    # Margins 2, 2, -2, -2 become 1, -1, 2, -2.
    assert found.margin_mean == pytest.approx((-1 - 3 + 4 + 0) / 4)
    p, q = (softmax(x.astype(np.float64), axis=1) for x in (before, after))
    assert found.kl_mean == pytest.approx(entropy(p, q, axis=1).mean())
    assert found.kl_max == pytest.approx(entropy(p, q, axis=1).max())


def test_a_step_with_nan_has_counts_and_no_distance() -> None:
    before, after = noisy(2)
    after[3, 2] = np.nan
    found = step(before, after, np.zeros(len(before), np.int64))
    assert (found.kl_mean, found.kl_max, found.margin_mean) == (None, None, None)
    assert found.drift.nonfinite == 1
    assert found.change.n == len(before)


def test_a_step_refuses_what_is_not_finite_and_what_is_half_measured() -> None:
    good = step(*noisy(3), np.zeros(40, np.int64))
    with pytest.raises(ValueError, match="must be None"):
        StepRecord(good.drift, good.change, float("nan"), 1.0, 0.0)
    with pytest.raises(ValueError, match="all are measured, or none"):
        StepRecord(good.drift, good.change, None, 1.0, 0.0)


def test_the_agreement_matrix_is_that_of_each_pair_with_ties_and_nan() -> None:
    rng = np.random.default_rng(4)
    stages = [rng.integers(0, 3, size=(200, 5)).astype(np.float32) for _ in range(4)]  # ties in most rows
    stages.append(stages[0].copy())
    stages.append(rng.normal(size=(200, 5)).astype(np.float32))
    stages[2][5] = np.nan
    stages[4][7, 1] = np.inf
    matrix = agreement_matrix(stages)
    for i, a in enumerate(stages):
        for j, b in enumerate(stages):
            assert matrix[i][j] == agreement(a, b).same, (i, j)
    assert matrix[2][2] == 199
    with pytest.raises(ValueError, match="the same images"):
        agreement_matrix([stages[0], stages[1][:10]])


def test_images_that_changed_come_first_then_those_further_away() -> None:
    first = np.array([[4.0, 0.0], [0.2, 0.0], [4.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.0, 0.0]])
    other = np.array([[0.5, 0.0], [0.0, 0.2], [4.0, 0.0], [0.0, 3.0], [np.nan, 0.0], [1.1, 0.0]])
    found = most_moved([first, other], limit=10)
    # 4 is not finite, 3 and 1 changed their class (3 further), 0 and 5 did not, 2 did not move.
    assert [image.row for image in found] == [4, 3, 1, 0, 5]
    assert found[0].kl is None
    assert found[0].classes == (0, None)
    assert found[1].classes == (0, 1)
    assert found[3].kl == pytest.approx(float(kl_divergence(first, other)[0]))
    assert [image.row for image in most_moved([first, other], limit=2)] == [4, 3]


def test_the_furthest_stage_decides() -> None:
    first = np.array([[1.0, 0.0], [1.0, 0.0]])
    near, far = np.array([[1.1, 0.0], [1.2, 0.0]]), np.array([[3.0, 0.0], [1.2, 0.0]])
    found = most_moved([first, near, far], limit=2)
    assert [image.row for image in found] == [0, 1]
    assert found[0].kl == pytest.approx(float(kl_divergence(first, far)[0]))
