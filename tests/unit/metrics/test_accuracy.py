"""Counts against hand figures, scikit-learn and the closed form of Wilson's interval."""

import math

import numpy as np
import pytest

from pipeline.metrics.accuracy import Accuracy, Agreement, accuracy, agreement, per_class, wilson_percent


def test_counts_by_hand() -> None:
    logits = np.array([[0.1, 0.9, 0.0, -1, -2, -3], [5.0, 4, 3, 2, 1, 0], [5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5.0]])
    labels = np.array([1, 4, 5, 0])  # right; fifth; sixth; sixth

    result = accuracy(logits, labels)

    assert result == Accuracy(n=4, top1=1, top5=2)
    assert result.top1_percent == 25.0


def test_counts_against_scikit_learn() -> None:
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 12)).astype(np.float32), rng.integers(0, 12, 500)
    result = accuracy(logits, labels)

    for k, count in ((1, result.top1), (5, result.top5)):
        assert count == top_k_accuracy_score(labels, logits, k=k, labels=range(12), normalize=False)


def test_a_tie_is_never_right_whatever_the_order_of_the_classes() -> None:
    tied = np.array([[1.0, 1.0, 0.0]])

    assert accuracy(tied, np.array([0])).top1 == 0
    assert accuracy(tied, np.array([1])).top1 == 0


def test_constant_logits_are_never_right_in_the_top_five() -> None:
    assert accuracy(np.zeros((3, 10)), np.array([0, 1, 2])) == Accuracy(3, 0, 0)


def test_nan_is_never_right_even_where_the_true_class_leads() -> None:
    logits = np.array([[9.0, np.nan, 0, 0, 0, 0], [np.nan] * 6, [9.0, 0, 0, 0, 0, 0]])

    assert accuracy(logits, np.zeros(3, dtype=int)) == Accuracy(3, 1, 1)


def test_top5_of_four_classes_is_not_measured() -> None:
    result = accuracy(np.eye(4), np.arange(4))

    assert result == Accuracy(4, 4, None)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 10)), np.zeros(0, int), "at least 1 image"),
        (np.zeros((3, 1)), np.zeros(3, int), "2 classes"),
        (np.zeros(10), np.zeros(1, int), "shape"),
        (np.zeros((3, 10)), np.zeros(2, int), "3 images"),
        (np.zeros((3, 10)), np.array([0, 1, 10]), "from 0 to 10"),
        (np.zeros((3, 10)), np.array([-1, 1, 2]), "from -1 to 2"),
        (np.zeros((3, 10)), np.zeros(3), "integers"),
    ],
)
def test_what_cannot_be_counted_is_refused(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(logits, labels)


@pytest.mark.parametrize(("n", "top1", "top5"), [(0, 0, None), (10, 11, None), (10, 5, 4), (10, 5, 11), (10, -1, None)])
def test_impossible_counts_are_refused(n: int, top1: int, top5: int | None) -> None:
    with pytest.raises(ValueError, match="images"):
        Accuracy(n, top1, top5)


def test_per_class_lists_only_classes_that_have_images() -> None:
    logits = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    counts = per_class(logits, np.array([0, 0, 2]))

    assert [(c.label, c.n, c.top1) for c in counts] == [(0, 2, 1), (2, 1, 1)]


def test_agreement_by_hand() -> None:
    a = np.array([[2.0, 1, 0], [0, 1, 2.0], [1.0, 1, 0], [1.0, 1, 0], [np.nan, 1, 0]])
    b = np.array([[9.0, 1, 0], [2.0, 1, 0], [3.0, 3, 0], [3.0, 1, 0], [np.nan, 1, 0]])
    # same; different; the same tie; tie against a winner; NaN

    assert agreement(a, b) == Agreement(n=5, same=2)
    assert agreement(b, a) == Agreement(n=5, same=2)


def test_agreement_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        agreement(np.zeros((3, 10)), np.zeros((4, 10)))


@pytest.mark.parametrize(("count", "n"), [(0, 20), (20, 20), (350, 360), (7, 11)])
def test_wilson_against_its_closed_form(count: int, n: int) -> None:
    z, p = 1.959963984540054, count / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))

    low, high = wilson_percent(count, n)

    assert low == pytest.approx(100 * (centre - half), abs=1e-9)
    assert high == pytest.approx(100 * (centre + half), abs=1e-9)


def test_wilson_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="n"):
        wilson_percent(0, 0)
