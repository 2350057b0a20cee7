"""How often the throttling detector sees a device that slows down, and how often one that does not.

    python benchmarks/throttling.py [--series 1000] [--seed 0]

Synthetic benchmarks of several files that take turns, 2 to 5 samples a round: noise is lognormal, with one inference in
twenty disturbed, alike from round to round (AR(1)) or not. Slowdowns are 10 to 60 % at the end: ramps over all or the
last part of the rounds, steps at any place with at least a quarter of the rounds after it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.accuracy import wilson_percent
from pipeline.metrics.throttling import throttling


@dataclass(frozen=True)
class Noise:
    """Relative sizes: of one inference, of what a round's inferences share, and how much of it the next round keeps."""

    name: str
    sample: float
    shared: float
    kept: float


NOISES = (
    Noise("quiet", 0.01, 0.005, 0.0),
    Noise("usual", 0.03, 0.01, 0.3),
    Noise("busy", 0.06, 0.02, 0.5),
)
ROUNDS = (10, 20, 40)


def rounds_of(rng: np.random.Generator, noise: Noise, rounds: int, slowdown: np.ndarray) -> list[list[list[float]]]:
    """[files][rounds][samples in ms] of two or three files, slowed by `slowdown` [rounds] (1: not)."""
    shared = np.zeros(rounds)
    for n in range(rounds):
        shared[n] = noise.kept * (shared[n - 1] if n else 0.0) + rng.normal(0, noise.shared)
    samples = int(rng.integers(2, 6))
    files = []
    for base_ms in rng.uniform(2, 60, rng.integers(2, 4)):
        own = rng.normal(0, noise.sample, (rounds, samples))
        own += (rng.random((rounds, samples)) < 0.05) * rng.exponential(0.3, (rounds, samples))
        files.append((base_ms * np.exp(own + shared[:, None]) * slowdown[:, None]).tolist())
    return files


def ramp(rng: np.random.Generator, rounds: int) -> np.ndarray:
    start = int(rng.integers(0, rounds // 2))
    rise = np.clip((np.arange(rounds) - start) / (rounds - 1 - start), 0, 1)
    return 1 + rng.uniform(0.1, 0.6) * rise


def step(rng: np.random.Generator, rounds: int) -> np.ndarray:
    at = int(rng.integers(rounds // 4, rounds - rounds // 4 + 1))
    return 1 + rng.uniform(0.1, 0.6) * (np.arange(rounds) >= at)


def none(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return np.ones(rounds)


def flagged(shape: object, noise: Noise, rounds: int, series: int, seed: int) -> int:
    """How many of `series` are flagged."""
    count = 0
    for number in range(series):
        rng = np.random.default_rng([seed, rounds, number, NOISES.index(noise)])
        found = throttling(rounds_of(rng, noise, rounds, shape(rng, rounds)))  # type: ignore[operator]
        count += found is not None and found.flagged
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| noise | rounds | " + " | ".join(s.__name__ for s in (ramp, step, none)) + " |\n|---|---|---|---|---|")
    total = dict.fromkeys(("ramp", "step", "none"), 0)
    for noise in NOISES:
        for rounds in ROUNDS:
            row = []
            for shape in (ramp, step, none):
                count = flagged(shape, noise, rounds, arguments.series, arguments.seed)
                total[shape.__name__] += count
                row.append(f"{100 * count / arguments.series:.1f} %")
            print(f"| {noise.name} | {rounds} | {' | '.join(row)} |", flush=True)
    n = arguments.series * len(NOISES) * len(ROUNDS)
    for name, count in total.items():
        low, high = wilson_percent(count, n)
        print(f"flagged of {n} {name}: {100 * count / n:.2f} % ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
