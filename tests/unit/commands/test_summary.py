"""The bar of `validate --min-agreement` on made-up records."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.commands.validate import raise_if_below
from pipeline.errors import BelowBarError
from pipeline.metrics.accuracy import accuracy
from pipeline.metrics.drift import drift
from pipeline.records.keys import OK, CellKey, Outcome
from pipeline.records.validation import ValidationRecord

KEY = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "host")


def record(flipped: int, of: int = 200) -> ValidationRecord:
    """`flipped` of 200 images get another class than in the QDQ program; none differs from the float model."""
    logits = np.eye(10)[np.arange(of) % 10]
    qdq = logits.copy()
    qdq[:flipped] = np.roll(qdq[:flipped], 1, axis=1)
    return ValidationRecord(
        KEY, OK, accuracy(logits, np.arange(of) % 10), drift(logits, logits), drift(qdq, logits), seconds=1.0
    )


def test_at_the_bar_passes_and_below_fails() -> None:
    raise_if_below(98.5, [record(flipped=3)])
    with pytest.raises(BelowBarError, match=r"tflite litert int8: 98.00 % \(n=200\)") as error:
        raise_if_below(98.5, [record(flipped=0), record(flipped=4)])
    assert error.value.exit_code == 8
    assert "1 of 2 artifacts" in str(error.value)


def test_the_float_model_is_the_reference_where_there_is_no_trained_checkpoint() -> None:
    raise_if_below(100, [dataclasses.replace(record(flipped=9), drift_qdq=None)])


def test_nothing_measured_is_no_pass() -> None:
    unavailable = ValidationRecord(KEY, Outcome("unavailable", None, "no runtime"), None, None, None, None)
    with pytest.raises(BelowBarError, match="no artifact was measured"):
        raise_if_below(0, [unavailable])
    with pytest.raises(BelowBarError, match="no artifact was measured"):
        raise_if_below(0, [])
