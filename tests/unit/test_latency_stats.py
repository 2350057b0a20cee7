"""Latency summaries against hand figures, scipy and a known ratio."""

import numpy as np
import pytest

from pipeline.metrics.latency import ratio, summarize


def test_summary_by_hand() -> None:
    result = summarize([4.0, 1.0, 2.0, 3.0, 10.0])  # deviations from 3: 1 2 1 0 7

    assert result.n == 5
    assert result.median_ms == 3.0
    assert result.mad_ms == 1.0
    assert result.p90_ms == pytest.approx(4.0 + 0.6 * 6.0)  # at 0.9 * 4 = 3.6 between the 4th and 5th


def test_summary_against_scipy() -> None:
    from scipy.stats import median_abs_deviation, scoreatpercentile

    samples = np.random.default_rng(0).gamma(2.0, 3.0, 301)
    result = summarize(samples)

    assert result.mad_ms == pytest.approx(median_abs_deviation(samples))
    assert result.p90_ms == pytest.approx(scoreatpercentile(samples, 90))
    assert result.median_ms == sorted(samples)[150]


def test_one_sample_is_a_summary() -> None:
    assert summarize([2.5]).p90_ms == 2.5


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [1.0, -2.0], [float("nan")], [float("inf"), 1.0], [[1.0], [2.0]]])
def test_what_no_timer_measures_is_refused(samples: list) -> None:
    with pytest.raises(ValueError, match="latency sample"):
        summarize(samples)


def test_ratio_is_paired_by_round() -> None:
    control = [[1.0, 1.0, 9.0], [10.0, 10.0, 90.0], [2.0, 2.0, 2.0]]  # the machine was slow in the second round
    model = [[3.0, 3.0, 3.0], [30.0, 1.0, 30.0], [8.0, 8.0, 8.0]]  # ratios 3, 3, 4; pooled medians 8 / 2 = 4

    result = ratio(model, control)

    assert result.ratio == 3.0
    assert result.rounds == 3
    assert result.low == 3.0
    assert result.high == 4.0


def test_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        control = rng.gamma(50.0, 0.02, (15, 9))
        result = ratio((3.0 * rng.gamma(50.0, 0.02, (15, 9))).tolist(), control.tolist(), seed=seed)
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 3.0 <= result.high
    assert covered >= 52  # 57 expected of 60 at 95%; 51 or fewer has a chance under 1%


def test_same_seed_same_interval() -> None:
    rng = np.random.default_rng(1)
    model, control = rng.gamma(50.0, 0.1, (8, 5)).tolist(), rng.gamma(50.0, 0.1, (8, 5)).tolist()

    assert ratio(model, control, seed=3) == ratio(model, control, seed=3)


def test_a_single_round_has_no_interval() -> None:
    result = ratio([[2.0, 2.0]], [[1.0, 1.0]])

    assert (result.ratio, result.low, result.high) == (2.0, None, None)


def test_constant_rounds_give_a_point() -> None:
    result = ratio([[2.0]] * 4, [[1.0]] * 4)

    assert (result.ratio, result.low, result.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("model", "control"), [([], []), ([[1.0]], [[1.0], [1.0]]), ([[1.0], []], [[1.0], [1.0]])])
def test_unpaired_or_empty_rounds_are_refused(model: list, control: list) -> None:
    with pytest.raises(ValueError, match=r"paired|at least one"):
        ratio(model, control)
