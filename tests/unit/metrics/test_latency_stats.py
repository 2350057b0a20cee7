"""Latency summaries against hand figures, scipy and a known ratio."""

import numpy as np
import pytest

from pipeline.metrics import latency
from pipeline.metrics.latency import (
    SESSION_SD,
    LatencyRatio,
    RoundRatios,
    ratio_change,
    ratio_of,
    round_ratios,
    summarize,
)


def ratio(rounds_ms: list[list[float]], control_ms: list[list[float]]) -> LatencyRatio:
    return ratio_of(round_ratios(rounds_ms, control_ms))


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
    for _ in range(60):
        control = rng.gamma(50.0, 0.02, (15, 9))
        result = ratio((3.0 * rng.gamma(50.0, 0.02, (15, 9))).tolist(), control.tolist())
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 3.0 <= result.high
    assert covered >= 52  # 57 expected of 60 at 95%; 51 or fewer has a chance under 1%


def test_the_same_samples_give_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    model, control = rng.gamma(50.0, 0.1, (8, 5)).tolist(), rng.gamma(50.0, 0.1, (8, 5)).tolist()

    assert ratio(model, control) == ratio(model, control)


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


def by_process(random: np.random.Generator, processes: int, rounds: int, level: float = 3.0) -> RoundRatios:
    """Each process has a level of its own, 2% apart; rounds of it lie 3% around that."""
    levels = np.repeat(random.normal(0.0, 0.02, processes), rounds)
    logs = np.log(level) + levels + random.normal(0.0, 0.03, processes * rounds)
    return RoundRatios(tuple(np.exp(logs).tolist()), processes)


def test_ratios_of_one_process_are_of_medians_round_by_round() -> None:
    result = round_ratios([[3.0, 3.0, 30.0], [8.0]], [[1.0, 9.0, 1.0], [2.0]])

    assert result == RoundRatios((3.0, 4.0))


def test_ratios_of_processes_are_of_the_fastest_samples_of_each() -> None:
    model = [[9.0, 3.0], [4.0, 8.0], [6.0, 5.0], [7.0, 5.5]]  # processes: 3 and 5
    control = [[2.0, 1.5], [1.0, 4.0], [9.0, 2.0], [8.0, 2.5]]  # 1 and 2

    assert round_ratios(model, control, 2) == RoundRatios((3.0, 2.5), 2)
    with pytest.raises(ValueError, match="4 rounds do not spread evenly over 3 processes"):
        round_ratios(model, control, 3)


@pytest.mark.parametrize(
    ("ratios", "processes", "says"),
    [((), 1, "at least one"), ((1.0, -1.0), 1, "positive"), ((1.0, float("nan")), 1, "positive"), ((1.0,), 0, "evenly"),
     ((1.0, 2.0, 3.0), 2, "do not spread evenly")],
)  # fmt: skip
def test_impossible_round_ratios_are_refused(ratios: tuple, processes: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RoundRatios(ratios, processes)


def test_a_ratio_over_processes_against_scipy() -> None:
    from scipy import stats

    measured = RoundRatios((2.0, 2.2, 2.1, 2.6, 2.4, 9.0, 2.2, 2.3, 2.3), 3)  # medians 2.1, 2.6, 2.3
    logs = np.log([2.1, 2.6, 2.3])
    variance = stats.sem(logs) ** 2
    total = variance + SESSION_SD**2
    low, high = stats.t.interval(0.9, 2 * (total / variance) ** 2, loc=logs.mean(), scale=np.sqrt(total))

    result = ratio_of(measured, confidence=0.9)

    assert result.ratio == pytest.approx(stats.gmean([2.1, 2.6, 2.3]))
    assert (result.low, result.high) == (pytest.approx(np.exp(low)), pytest.approx(np.exp(high)))
    assert result.rounds == 9


def test_without_a_spread_between_sessions_it_is_the_t_interval_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import stats

    monkeypatch.setattr(latency, "SESSION_SD", 0.0)
    interval = stats.ttest_1samp(np.log([2.1, 2.6, 2.3]), 0.0).confidence_interval(0.9)

    result = ratio_of(RoundRatios((2.1, 2.6, 2.3), 3), confidence=0.9)

    assert (result.low, result.high) == (pytest.approx(np.exp(interval.low)), pytest.approx(np.exp(interval.high)))


def test_the_interval_over_processes_covers_what_one_over_rounds_does_not() -> None:
    random = np.random.default_rng(0)
    over_processes = over_rounds = 0
    for _ in range(200):
        measured = by_process(random, 5, 8)
        for processes in (5, 1):
            result = ratio_of(RoundRatios(measured.ratios, processes))
            assert result.low is not None
            assert result.high is not None
            covered = result.low <= 3.0 <= result.high
            if processes == 5:
                over_processes += covered
            else:
                over_rounds += covered
    assert over_processes >= 182  # 190 expected; fewer has a chance under 1%
    assert over_rounds < over_processes - 10


def test_a_change_by_hand() -> None:
    before, now = RoundRatios((2.0, 2.0, 8.0, 8.0), 2), RoundRatios((4.0, 4.0, 16.0, 16.0), 2)

    result = ratio_change(now, before)

    assert result.change == pytest.approx(2.0)  # geometric means 8 and 4
    assert (result.rounds, result.before_rounds, result.confidence) == (4, 4, 0.95)


def test_a_change_against_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SESSION_SD", 0.0)
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    random = np.random.default_rng(3)
    for processes, usevar in ((5, "pooled"), (8, "unequal")):
        now, before = by_process(random, processes, 4, 3.2), by_process(random, 5, 4)
        medians = [np.median(np.reshape(m.ratios, (m.processes, -1)), axis=1) for m in (now, before)]
        means = CompareMeans(*(DescrStatsW(np.log(m)) for m in medians))
        low, high = means.tconfint_diff(alpha=0.1, usevar=usevar)

        result = ratio_change(now, before, confidence=0.9)

        assert (result.low, result.high) == (pytest.approx(np.exp(low)), pytest.approx(np.exp(high)))


def test_a_change_of_rounds_of_one_process_is_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.stats import ttest_ind

    monkeypatch.setattr(latency, "SESSION_SD", 0.0)

    now, before = (2.2, 2.3, 2.5, 2.4), (2.0, 2.1, 2.2, 2.1)
    interval = ttest_ind(np.log(now), np.log(before)).confidence_interval(0.95)

    result = ratio_change(RoundRatios(now), RoundRatios(before))

    assert (result.low, result.high) == (pytest.approx(np.exp(interval.low)), pytest.approx(np.exp(interval.high)))


def test_no_change_is_excluded_no_more_often_than_it_says_and_a_tenth_is_found() -> None:
    random = np.random.default_rng(0)
    alarms = found = 0
    for _ in range(300):
        before, now = by_process(random, 5, 8), by_process(random, 5, 8)
        same = ratio_change(now, before)
        slow = ratio_change(RoundRatios(tuple(1.1 * r for r in now.ratios), 5), before)
        assert same.low is not None
        assert slow.low is not None
        assert slow.high is not None
        alarms += same.low > 1.0
        found += slow.low > 1.0 and slow.high > 1.1
    assert alarms <= 16  # 7.5 expected of 300 at one-sided 2.5%; more has a chance under 1%
    assert found >= 284  # 292 expected: a true 1.1 lies under the interval in 2.5%


@pytest.mark.parametrize("single", ["now", "before", "both"])
def test_a_single_measurement_has_no_interval(single: str) -> None:
    one, many = RoundRatios((2.0,)), RoundRatios((2.0, 2.1, 2.2))
    result = ratio_change(many if single == "before" else one, many if single == "now" else one)

    assert (result.low, result.high) == (None, None)


def test_two_benchmarks_differ_by_chance_even_if_their_processes_do_not() -> None:
    from scipy.stats import norm

    result = ratio_change(RoundRatios((3.0,) * 4, 2), RoundRatios((2.0,) * 4, 2))

    half = norm.ppf(0.975) * np.sqrt(2) * SESSION_SD
    assert result.change == pytest.approx(1.5)
    assert (result.low, result.high) == (pytest.approx(1.5 * np.exp(-half)), pytest.approx(1.5 * np.exp(half)))


def test_a_spread_between_benchmarks_is_covered() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        sides = []
        for _ in range(2):
            session = random.normal(0.0, SESSION_SD)
            sides.append(RoundRatios(tuple(np.exp(session + random.normal(1.0, 0.005, 5)).tolist()), 5))
        result = ratio_change(*sides)
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 1.0 <= result.high
    assert covered >= 369  # 380 expected at 95%; fewer has a chance under 1%
