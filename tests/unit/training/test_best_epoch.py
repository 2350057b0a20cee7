"""Of several epochs the best one is kept, by right answers and then by distance from the float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import RunError
from pipeline.run.layout import BEST_FILE
from pipeline.training.best_epoch import BestEpoch

LABELS = np.array([0, 1])
REFERENCE = np.array([[2.0, 0.0], [0.0, 2.0]])
WRONG = np.array([[0.0, 2.0], [2.0, 0.0]])
HALF = np.array([[2.0, 0.0], [2.0, 0.0]])
NEAR, FAR = REFERENCE * 1.1, REFERENCE * 3  # both right


def best_of(file: Path, *epochs: np.ndarray) -> int:
    module = nn.Linear(1, 1)
    best = BestEpoch(file, module, REFERENCE, LABELS)
    for epoch, logits in enumerate(epochs, start=1):
        with torch.no_grad():
            module.weight.fill_(epoch)
        best.offer(epoch, logits)
    kept = best.take()
    assert kept is not None
    assert module.weight.item() == kept.epoch
    assert np.array_equal(kept.logits, epochs[kept.epoch - 1].astype(np.float32))
    assert kept.right == (epochs[kept.epoch - 1].argmax(axis=1) == LABELS).sum()
    return kept.epoch


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ((WRONG, HALF, FAR), 3),
        ((FAR, HALF, HALF), 1),
        ((FAR, NEAR, FAR), 2),
        ((NEAR, FAR, NEAR), 1),  # of equals the first one
        ((HALF * np.nan, WRONG), 2),
    ],
)
def test_more_right_answers_are_better_then_the_smaller_distance(
    epochs: tuple[np.ndarray, ...], best: int, tmp_path: Path
) -> None:
    assert best_of(tmp_path / BEST_FILE, *epochs) == best


def test_without_an_epoch_there_is_none(tmp_path: Path) -> None:
    assert BestEpoch(tmp_path / BEST_FILE, nn.Linear(1, 1), REFERENCE, LABELS).take() is None


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / BEST_FILE).write_bytes(b"half a file")
    with pytest.raises(RunError, match=BEST_FILE):
        BestEpoch(tmp_path / BEST_FILE, nn.Linear(1, 1), REFERENCE, LABELS)
