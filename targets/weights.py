"""Tell trained weights of a file from constants that only copy, add or average."""

from __future__ import annotations

import numpy as np


def is_trained(weight: np.ndarray) -> bool:
    """Whether the weight is more than a way to copy, add or average: these have equal elements beside zeros.

    One-hot kernels, rows of ones and rows of 1/n are constants of the architecture, written as products because a
    delegate takes those. They hold no float weight that a quantizer forgot.
    """
    values = np.unique(weight[weight != 0])
    return len(values) > 1
