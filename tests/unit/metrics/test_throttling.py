"""A device that becomes slower while it is measured is flagged; one that does not is not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.throttling import throttling

ROUNDS = 40


def files(slowdown: np.ndarray, *bases_ms: float, noise: float = 0.02, seed: int = 0) -> list[list[list[float]]]:
    """[files][rounds][4 samples]."""
    rng = np.random.default_rng(seed)
    return [(base * slowdown[:, None] * np.exp(rng.normal(0, noise, (len(slowdown), 4)))).tolist() for base in bases_ms]


def test_a_step_is_found_where_it_is() -> None:
    found = throttling(files(np.where(np.arange(ROUNDS) >= 25, 1.3, 1.0), 20, 6, noise=0.001))
    assert found is not None
    assert (found.shape, found.at_round, found.flagged) == ("step", 25, True)
    assert found.slowdown == pytest.approx(1.3, rel=0.01)


def test_a_ramp_is_found_with_its_start() -> None:
    rise = 1 + 0.4 * np.clip((np.arange(ROUNDS) - 10) / (ROUNDS - 1 - 10), 0, 1)
    found = throttling(files(rise, 20, 6, noise=0.001))
    assert found is not None
    assert found.shape == "ramp"
    assert found.at_round == pytest.approx(10, abs=3)
    assert found.slowdown == pytest.approx(1.4, rel=0.05)


def test_becoming_faster_is_no_throttling() -> None:
    found = throttling(files(np.linspace(1.4, 1.0, ROUNDS), 20, 6))
    assert found is not None
    assert not found.flagged


def test_one_file_alone_is_no_throttling() -> None:
    slow = np.where(np.arange(ROUNDS) >= 20, 1.5, 1.0)
    found = throttling([files(slow, 20)[0], files(np.ones(ROUNDS), 6, seed=1)[0]])
    assert found is not None
    assert not found.flagged


def test_one_disturbed_inference_a_round_is_no_throttling() -> None:
    """The fastest inference of a round counts; a disturbed one beside it does not."""
    series = files(np.ones(ROUNDS), 20, 6)
    for rounds in series:
        for samples in rounds[20:]:
            samples[0] *= 3
    found = throttling(series)
    assert found is not None
    assert not found.flagged


def test_a_change_too_small_to_matter_is_told_and_not_flagged() -> None:
    found = throttling(files(np.where(np.arange(ROUNDS) >= 20, 1.02, 1.0), 20, 6, noise=0.001))
    assert found is not None
    assert not found.flagged
    assert found.slowdown == pytest.approx(1.02, rel=0.005)


def test_few_rounds_are_not_measured() -> None:
    assert throttling(files(np.ones(9), 20, 6)) is None


@pytest.mark.parametrize("shape", ["ramp", "step", "none"])
def test_rates(shape: str) -> None:
    """The bars of the detector on a small sample; benchmarks/throttling.py measures them on a large one."""
    flagged, n = 0, 100
    for number in range(n):
        rng = np.random.default_rng([7, number])
        size, at = rng.uniform(0.1, 0.6), int(rng.integers(10, 31))
        rises = {
            "ramp": np.clip((np.arange(ROUNDS) - at / 2) / (ROUNDS - 1 - at / 2), 0, 1),
            "step": (np.arange(ROUNDS) >= at).astype(float),
            "none": np.zeros(ROUNDS),
        }
        found = throttling(files(1 + size * rises[shape], 20, 6, noise=0.04, seed=number))
        flagged += found is not None and found.flagged
    assert flagged <= 5 if shape == "none" else flagged >= 95


def test_noise_that_is_alike_from_round_to_round_is_not_taken_for_a_rise() -> None:
    flagged = 0
    for number in range(100):
        rng = np.random.default_rng([8, number])
        drift = np.zeros(ROUNDS)
        for n in range(1, ROUNDS):
            drift[n] = 0.5 * drift[n - 1] + rng.normal(0, 0.03)
        found = throttling(files(np.exp(drift), 20, 6, noise=0.01, seed=number))
        flagged += found is not None and found.flagged
    assert flagged <= 10


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[10, 12\] rounds"):
        throttling([[[1.0]] * 10, [[1.0]] * 12])
    with pytest.raises(ValueError, match="no timer"):
        throttling([[[0.0]] * 10])
