"""Whether QAT is worth keeping: its answers beside those of the calibrated graph that it began with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.accuracy import correct
from pipeline.metrics.drift import kl_divergence
from pipeline.metrics.paired import paired_drop


@dataclass(frozen=True)
class Kept:
    """Which of two graphs became the checkpoint, and why.

    Attributes:
        trained: whether it is the trained one.
        n: validation images that the QDQ programs of both were scored on.
        calibrated_right: images that the calibrated graph answers rightly; trained_right: the trained one.
        lost: images that only the calibrated graph answers rightly; gained: only the trained one.
        calibrated_kl: mean KL divergence from the float model's answers, in nats, None if one is not
            finite; trained_kl likewise.
    """

    trained: bool
    n: int
    calibrated_right: int
    trained_right: int
    lost: int
    gained: int
    calibrated_kl: float | None
    trained_kl: float | None

    def told(self) -> str:
        """One line for the reader."""
        before, after = (f"{100 * right / self.n:.2f} %" for right in (self.calibrated_right, self.trained_right))
        figures = (
            f"top-1 {before} by calibration alone, {after} after QAT "
            f"(n={self.n}, {self.lost} lost, {self.gained} gained)"
        )
        if self.trained:
            return f"{figures}: the trained graph is kept"
        return f"{figures}: QAT made it worse, so the calibrated graph is kept; --keep trained keeps the other one"


def choose(
    reference: NDArray[np.floating],
    calibrated: NDArray[np.floating],
    trained: NDArray[np.floating],
    labels: NDArray[np.integer],
    keep: str,
) -> Kept:
    """The trained graph, unless it answers fewer images rightly than the calibrated one, or some with NaN.

    Args:
        reference: logits [N, classes] of the float model; the others of both graphs on the same images.
        keep: of --keep; "trained" keeps it whatever its score.
    """
    right_before, right_after = correct(calibrated, labels), correct(trained, labels)
    paired = paired_drop(right_before, right_after)
    before, after = _mean_kl(reference, calibrated), _mean_kl(reference, trained)
    finite = after is not None or before is None
    return Kept(
        trained=keep == "trained" or (finite and paired.lost <= paired.gained),
        n=paired.n,
        calibrated_right=int(right_before.sum()),
        trained_right=int(right_after.sum()),
        lost=paired.lost,
        gained=paired.gained,
        calibrated_kl=before,
        trained_kl=after,
    )


def _mean_kl(reference: NDArray[np.floating], logits: NDArray[np.floating]) -> float | None:
    mean = float(kl_divergence(reference, logits).mean())
    return mean if np.isfinite(mean) else None
