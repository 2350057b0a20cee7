"""Which artifacts `convert` makes for the targets and precisions asked for."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.stages.convert import Cell, plan_cells
from targets import registry


def test_int8_comes_from_the_trained_program_and_the_rest_from_the_float_one() -> None:
    cells = plan_cells(["tflite"], ["fp32", "fp16", "int8"], from_float=False, say=pytest.fail)
    assert cells == [
        Cell("tflite", "fp32", "float"),
        Cell("tflite", "fp16", "float"),
        Cell("tflite", "int8", "qat"),
    ]
    assert plan_cells(["coreml"], ["int8"], from_float=True, say=pytest.fail) == [Cell("coreml", "int8", "ptq")]


def test_a_precision_that_one_target_lacks_is_told_and_the_others_go_on() -> None:
    said: list[str] = []
    cells = plan_cells(registry.names(), ["fp16"], from_float=False, say=said.append)
    assert [c.target for c in cells] == ["coreml", "tflite"]
    assert said == ["executorch is not converted in fp16, only in fp32, int8"]


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(UsageError, match="executorch is not converted in fp16, only in fp32, int8"):
        plan_cells(["executorch"], ["fp16"], from_float=False, say=pytest.fail)
