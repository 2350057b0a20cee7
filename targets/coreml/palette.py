"""A weight and a number of bits in, its palette by k-means and the index of each element into it out."""

from __future__ import annotations

import numpy as np

# Lloyd's steps; the weights of the zoo settle within 150 at 256 entries.
_MAX_STEPS = 500


def palette(weight: np.ndarray, bits: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """k-means in one dimension (Lloyd 1982) from seeded k-means++ centres (Arthur and Vassilvitskii 2007).

    Elements with the same value are one weighted point, and points are sorted, so that a step costs a binary search for
    each centre: milliseconds where a general k-means takes seconds. The same weight gives the same palette anywhere.

    Args:
        weight: any shape, float.

    Returns:
        palette [2 ** bits] ascending, in the weight's dtype, and indices [weight.size] uint8. A weight with no more
        values than that is kept exactly, its last value repeated to fill the palette.
    """
    values, inverse, counts = np.unique(weight.astype(np.float64), return_inverse=True, return_counts=True)
    entries = 1 << bits
    centres = values if len(values) <= entries else _settle(values, counts, _seeded(values, counts, entries, seed))
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")
    padded = np.concatenate([centres, np.full(entries - len(centres), centres[-1])])
    return padded.astype(weight.dtype), nearest[inverse.ravel()].astype(np.uint8)


def _seeded(values: np.ndarray, counts: np.ndarray, entries: int, seed: int) -> np.ndarray:
    """`entries` of the values, each drawn in proportion to its squared distance from those before it; ascending."""
    rng = np.random.default_rng(seed)
    trials = 2 + int(np.log(entries))  # of each draw, the one that leaves least is kept (scikit-learn's greedy variant)
    chosen = [rng.choice(values, p=counts / counts.sum())]
    distance = (values - chosen[0]) ** 2  # [values], to the nearest centre so far
    for _ in range(entries - 1):
        cumulated = np.cumsum(distance * counts)
        drawn = np.searchsorted(cumulated, rng.random(trials) * cumulated[-1], side="right")
        candidates = values[np.minimum(drawn, len(values) - 1)]
        left = np.minimum(distance, (values - candidates[:, None]) ** 2)  # [trials, values]
        best = int(np.argmin(left @ counts))
        chosen.append(candidates[best])
        distance = left[best]
    return np.sort(np.array(chosen))


def _settle(values: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's steps until nothing moves; a centre without points stays where it is."""
    points = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * values)])
    for _ in range(_MAX_STEPS):
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(values)]])
        members = points[edges[1:]] - points[edges[:-1]]
        moved = np.where(members > 0, (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(members, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
