"""The label of a classifier."""

from __future__ import annotations

from torch import Tensor

from targets.coreml.interpreter.operators.unsupported import Unsupported
from targets.coreml.interpreter.rounding import Arithmetic


def classify(a: Arithmetic, probabilities: Tensor, classes: list[str]) -> tuple[str, dict[str, float]]:
    """The class with the largest probability, and the probability of each."""
    values = probabilities.reshape(-1).tolist()
    if len(values) != len(classes):
        raise Unsupported(f"classify of {len(values)} probabilities with {len(classes)} classes")
    table = dict(zip(classes, values, strict=True))
    return max(table, key=table.__getitem__), table
