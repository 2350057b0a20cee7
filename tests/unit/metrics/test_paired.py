"""The paired drop against statsmodels' McNemar test, scipy's bootstrap, hand figures and a simulation of its power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, bootstrap
from statsmodels.stats.contingency_tables import mcnemar

from pipeline.metrics.paired import PairedDrop, paired_drop, paired_drop_of_logits

COUNTS = [(360, 0, 0), (360, 3, 0), (360, 1, 4), (360, 9, 2), (2000, 60, 20), (2000, 21, 20), (10, 4, 6)]


@pytest.mark.parametrize(("n", "lost", "gained"), COUNTS)
def test_p_value_is_that_of_statsmodels(n: int, lost: int, gained: int) -> None:
    right = (n - lost - gained) // 2
    table = [[right, lost], [gained, n - lost - gained - right]]
    assert PairedDrop(n, lost, gained).p_value == pytest.approx(mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize(("n", "lost", "gained"), COUNTS)
def test_one_sided_p_is_the_binomial_tail(n: int, lost: int, gained: int) -> None:
    assert PairedDrop(n, lost, gained).p_loss == pytest.approx(binom.sf(lost - 1, lost + gained, 0.5))


def test_by_hand() -> None:
    before = np.array([1, 1, 1, 1, 0, 0, 1, 0], bool)
    after = np.array([1, 0, 0, 0, 0, 1, 1, 0], bool)
    change = paired_drop(before, after)
    assert (change.n, change.lost, change.gained) == (8, 3, 1)
    assert change.drop_pp == 25.0
    assert change.p_loss == (4 + 1) / 16  # 3 or 4 of 4 changed images are losses


def test_of_logits_counts_the_top_class() -> None:
    labels = np.array([0, 1, 1])
    before = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    after = np.array([[2.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # the tie of the last is no right answer
    assert paired_drop_of_logits(before, after, labels) == PairedDrop(3, 2, 0)


@pytest.mark.parametrize(("n", "lost", "gained"), [(360, 9, 2), (2000, 60, 20), (2000, 21, 20)])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_interval_is_that_of_scipy(n: int, lost: int, gained: int, confidence: float) -> None:
    """Both draw images at random, so their ends may be an image and a half apart."""
    change = np.repeat([1.0, -1.0, 0.0], [lost, gained, n - lost - gained])
    theirs = bootstrap(
        (change,), np.mean, n_resamples=9999, batch=500, confidence_level=confidence, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    low, high = PairedDrop(n, lost, gained).interval_pp(confidence)
    assert low == pytest.approx(100 * theirs.low, abs=150 / n)
    assert high == pytest.approx(100 * theirs.high, abs=150 / n)
    assert low < 100 * (lost - gained) / n < high


def test_interval_is_the_same_every_time_and_nothing_where_nothing_changed() -> None:
    assert PairedDrop(2000, 30, 20).interval_pp() == PairedDrop(2000, 30, 20).interval_pp()
    assert PairedDrop(2000, 0, 0).interval_pp(0.999) == (0.0, 0.0)


@pytest.mark.parametrize(("n", "noise", "alpha"), [(360, 2, 0.025), (2000, 20, 0.05), (2000, 20, 0.003)])
def test_smallest_detectable_drop_has_its_power(n: int, noise: int, alpha: float) -> None:
    """Draw runs with that drop, and with one that is a fifth smaller: about 80% and clearly fewer are found."""
    change = PairedDrop(n, noise, noise)
    drop = change.detectable_pp(alpha)
    assert drop is not None

    def found(loss: float) -> float:
        rng = np.random.default_rng(0)
        shares = [(noise + loss) / n, noise / n, 1 - (2 * noise + loss) / n]
        draws = rng.multinomial(n, shares, 20_000)  # [20000, 3]
        return float((binom.sf(draws[:, 0] - 1, draws[:, 0] + draws[:, 1], 0.5) <= alpha).mean())

    loss = drop * n / 100
    assert found(loss) >= 0.79
    assert found(loss - 2) < 0.81
    assert found(0.8 * loss) < 0.75


def test_no_drop_is_detectable_among_too_few_images() -> None:
    assert PairedDrop(4, 0, 0).detectable_pp(0.025) is None


def test_more_images_and_fewer_flips_show_smaller_drops() -> None:
    drops = [PairedDrop(n, 10, 10).detectable_pp() for n in (500, 1000, 2000, 10_000)]
    assert drops == sorted(drops, reverse=True)  # type: ignore[type-var]
    flips = [PairedDrop(2000, k, k).detectable_pp() for k in (0, 5, 20, 80)]
    assert flips == sorted(flips)  # type: ignore[type-var]


@pytest.mark.parametrize("counts", [(0, 0, 0), (10, 6, 5), (10, -1, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="lost"):
        PairedDrop(*counts)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_outcomes_of_other_images_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_drop(np.ones(shapes[0], bool), np.ones(shapes[1], bool))
