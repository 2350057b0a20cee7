"""Which constants of a file count as weights: trained ones, not the rows and kernels that only copy, add or average."""

from __future__ import annotations

import numpy as np
import pytest

from targets.match import is_trained


@pytest.mark.parametrize(
    "constant",
    [
        np.full((1, 147), 1 / 147, np.float32),  # a mean
        np.ones((64, 1), np.float32),  # a sum
        np.eye(9, dtype=np.float32).reshape(9, 1, 3, 3),  # a one-hot convolution
        np.zeros(4, np.float32),
        np.float32([[1 / 3, 1 / 3, 0], [0, 1 / 3, 1 / 3]]),  # a band
    ],
)
def test_untrained(constant: np.ndarray) -> None:
    assert not is_trained(constant)


def test_trained() -> None:
    assert is_trained(np.float32([[0.5, -0.5]]))
    assert is_trained(np.int8([[1, 2]]))
    almost = np.full((1, 147), 1 / 147, np.float32)
    almost[0, 3] *= 1.001
    assert is_trained(almost)
