"""Distances of logits against hand figures, scipy and torch."""

import math

import numpy as np
import pytest

from pipeline.metrics.drift import Drift, drift


def test_by_hand() -> None:
    reference, other = np.array([[3.0, 4.0], [6.0, 8.0]]), np.array([[3.0, 4.0], [8.0, 6.0]])
    # signal 9 + 16 + 36 + 64 = 125, noise 4 + 4 = 8; second cosine (48 + 48) / 100

    result = drift(reference, other)

    assert result.sqnr_db == pytest.approx(10 * math.log10(125 / 8))
    assert result.cosine_mean == pytest.approx((1 + 0.96) / 2)
    assert result.cosine_min == pytest.approx(0.96)
    assert result.max_abs == 2.0
    assert (result.n, result.agreement_same, result.nonfinite, result.exact) == (2, 1, 0, False)
    assert result.agreement_percent == 50.0


def test_against_torchao_and_scipy() -> None:
    from scipy.spatial.distance import cosine
    from torch import from_numpy
    from torchao.quantization.utils import compute_error

    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 10))
    other = reference + 0.05 * rng.normal(size=(40, 10))

    result = drift(reference, other)

    assert result.sqnr_db == pytest.approx(float(compute_error(from_numpy(reference), from_numpy(other))), abs=1e-9)
    cosines = [1 - cosine(a, b) for a, b in zip(reference, other, strict=True)]
    assert result.cosine_mean == pytest.approx(np.mean(cosines))
    assert result.cosine_min == pytest.approx(min(cosines))


def test_equal_logits_are_exact_and_have_no_sqnr() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    result = drift(logits, logits.copy())

    assert result.exact
    assert result.sqnr_db is None
    assert result.max_abs == 0.0
    assert result.agreement_same == 5
    assert result.cosine_min == pytest.approx(1.0)
    assert result.cosine_min is not None
    assert result.cosine_min <= 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted_and_nothing_else_is_measured(bad: float) -> None:
    reference = np.random.default_rng(0).normal(size=(5, 10))
    other = reference.copy()
    other[3, 2] = other[3, 4] = bad

    result = drift(reference, other)

    assert result.nonfinite == 1
    assert not result.exact
    assert (result.sqnr_db, result.cosine_mean, result.cosine_min, result.max_abs) == (None, None, None, None)


def test_dead_output_has_no_cosine() -> None:
    result = drift(np.ones((2, 10)), np.zeros((2, 10)))

    assert result.sqnr_db == pytest.approx(0.0)
    assert result.cosine_mean is None
    assert result.cosine_min is None
    assert result.agreement_same == 2  # both are ties of all ten classes


def test_reference_of_zeros_has_no_sqnr_and_is_not_exact() -> None:
    result = drift(np.zeros((2, 10)), np.ones((2, 10)))

    assert result.sqnr_db is None
    assert not result.exact


def test_half_precision_does_not_overflow() -> None:
    reference = np.full((2, 10), 6e4, dtype=np.float16)

    assert drift(reference, reference / 2).sqnr_db == pytest.approx(20 * math.log10(2))


@pytest.mark.parametrize("shape", [(0, 10), (3, 1), (10,)])
def test_empty_logits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1 image"):
        drift(np.zeros(shape), np.zeros(shape))


def test_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        drift(np.zeros((3, 10)), np.zeros((2, 10)))


@pytest.mark.parametrize(
    "values",
    [
        (0, 10.0, False, 1.0, 1.0, 0.1, 0, 0),
        (5, math.inf, False, 1.0, 1.0, 0.1, 5, 0),
        (5, math.nan, False, 1.0, 1.0, 0.1, 5, 0),
        (5, 10.0, False, 1.0, 1.0, 0.1, 6, 0),
        (5, 10.0, False, 1.0, 1.0, 0.1, 5, 1),
        (5, 10.0, True, 1.0, 1.0, 0.0, 5, 0),
        (5, None, True, 1.0, 1.0, 0.0, 4, 0),
    ],
)
def test_impossible_drift_is_refused(values: tuple) -> None:
    with pytest.raises(ValueError, match="drift"):
        Drift(*values)
