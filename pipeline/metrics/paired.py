"""The drop in top-1 from one stage to another on the same images, with its interval and its test.

Nothing is lost by counting: of n images, `lost` were right before and are wrong after, `gained` the other way round,
and the rest did not change. The drop is (lost - gained) / n.

Sources: Q. McNemar, Psychometrika 12 (1947), 153; its exact form is the binomial test of the changed images. The
paired bootstrap draws n images with replacement, and of each it needs only which of the three kinds it is: the draw is
multinomial.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import CONFIDENCE, correct

RESAMPLES = 9999
SEED = 0  # of the bootstrap: the same counts give the same interval
POWER = 0.8  # of the smallest detectable drop
TAIL = 1e-9  # of the number of changed images that power is not summed over


@dataclass(frozen=True)
class PairedDrop:
    """What changed over `n` images from one stage to another."""

    n: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.lost < 0 or self.gained < 0 or self.lost + self.gained > self.n:
            raise ValueError(f"{self.lost} images lost and {self.gained} gained of {self.n}")

    @property
    def drop_pp(self) -> float:
        """Percentage points of top-1; negative is a gain."""
        return 100.0 * (self.lost - self.gained) / self.n

    @cached_property
    def p_value(self) -> float:
        """Exact McNemar test, two-sided: how likely so uneven a change is if a loss is as likely as a gain."""
        return _p_value(self.lost, self.gained, "two-sided")

    @cached_property
    def p_loss(self) -> float:
        """The same against a loss only (one-sided)."""
        return _p_value(self.lost, self.gained, "greater")

    def interval_pp(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Paired percentile bootstrap interval of the drop, in percentage points."""
        return _interval_pp(self.n, self.lost, self.gained, confidence)

    def detectable_pp(self, alpha: float = 1 - CONFIDENCE) -> float | None:
        """The smallest drop that the one-sided exact McNemar test at level `alpha` finds with 80% power among so many
        images; None if there is none. Images that change without a loss are taken to be as many as seen here.
        """
        return _detectable_pp(self.n, min(self.lost, self.gained), alpha)


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedDrop:
    """[N] and [N], True where the answer is right, of the same images in the same order.

    Raises:
        ValueError: no images, or different numbers of them.
    """
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise ValueError(
            f"outcomes of shape {before.shape} and {after.shape}: the same images are needed on both sides"
        )
    return PairedDrop(len(before), int((before & ~after).sum()), int((~before & after).sum()))


def paired_drop_of_logits(
    before: NDArray[np.floating], after: NDArray[np.floating], labels: NDArray[np.integer]
) -> PairedDrop:
    """[N, C], [N, C] and [N] -> PairedDrop of the top class.

    Raises:
        ValueError: as `pipeline.metrics.accuracy.accuracy`.
    """
    return paired_drop(correct(before, labels), correct(after, labels))


def _p_value(lost: int, gained: int, alternative: str) -> float:
    from scipy.stats import binomtest

    return 1.0 if lost + gained == 0 else float(binomtest(lost, lost + gained, 0.5, alternative=alternative).pvalue)


@lru_cache(maxsize=4096)
def _interval_pp(n: int, lost: int, gained: int, confidence: float) -> tuple[float, float]:
    counts = np.random.default_rng(SEED).multinomial(n, [lost / n, gained / n, (n - lost - gained) / n], RESAMPLES)
    drops = counts[:, 0] - counts[:, 1]  # [RESAMPLES, 3] -> [RESAMPLES]
    low, high = np.quantile(drops, [(1 - confidence) / 2, (1 + confidence) / 2])
    return 100.0 * float(low) / n, 100.0 * float(high) / n


@lru_cache(maxsize=4096)
def _detectable_pp(n: int, noise: int, alpha: float) -> float | None:
    """Bisection over the expected number of images lost beyond `noise`; power grows with it."""
    low, high = 0, n - 2 * noise
    if high < 1 or _power(n, noise, high, alpha) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(n, noise, middle, alpha) >= POWER else (middle, high)
    return 100.0 * high / n


def _power(n: int, noise: int, loss: int, alpha: float) -> float:
    """That `noise` + `loss` images expected to be lost and `noise` to be gained make p_loss <= alpha."""
    from scipy.stats import binom

    share = min(1.0, (2 * noise + loss) / n)
    changed = np.arange(binom.ppf(TAIL, n, share), binom.isf(TAIL, n, share) + 1)
    changed = changed[changed > 0]
    needed = binom.isf(alpha, changed, 0.5) + 1  # fewest lost among `changed` with P(lost or more) <= alpha
    found = binom.sf(needed - 1, changed, (noise + loss) / (2 * noise + loss))
    return float((binom.pmf(changed, n, share) * found).sum())
