"""report.json: everything that went in comes back, nothing else is taken, and "not measured" is neither 0 nor NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from made_up_report import made_up_report, made_up_run, report_of

from pipeline.records.keys import CellKey, Outcome
from pipeline.records.report import report_to_json
from pipeline.records.validation import ValidationRecord
from targets.codec import RecordError, to_dict


def test_a_report_comes_back_equal() -> None:
    report = made_up_report()
    text = report_to_json(report)
    assert report_of(text) == report
    assert report_to_json(report_of(text)) == text


def test_there_is_one_record_for_each_model_target_runtime_precision_source_and_device() -> None:
    for run in json.loads(report_to_json(made_up_report()))["runs"]:
        keys = [tuple(v["key"].values()) for v in run["validations"]]
        assert len(keys) == len(set(keys)) == 8
        assert set(run["validations"][0]["key"]) == {"model", "target", "runtime", "precision", "source", "device"}


def test_what_was_not_measured_is_null() -> None:
    runs = json.loads(report_to_json(made_up_report()))["runs"]
    coreml = next(v for v in runs[0]["validations"] if v["key"]["target"] == "coreml")
    assert coreml["outcome"]["status"] == "unavailable"
    assert [coreml[name] for name in ("accuracy", "drift_float", "drift_qdq", "seconds")] == [None] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_not_written(value: float) -> None:
    with pytest.raises(TypeError, match=r"training\.lr.*no exact JSON form"):
        to_dict(replace(made_up_run(), training={"lr": value}))


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(report_to_json(made_up_report()))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("schema_version"), "lacks schema_version"),
        (lambda d: d["runs"][0].pop("stages"), r"the report.runs\[0\] lacks stages"),
        (lambda d: d["runs"][0].update(modle="x"), r"unknown key 'modle'. Did you mean 'model'"),
        (lambda d: d["runs"][0].update(parameters="many"), "parameters is 'many', expected int"),
        (lambda d: d["runs"][0].update(parameters=True), "parameters is True, expected int"),
        (lambda d: d["runs"][0]["validations"][0]["key"].update(precision="int4"), "expected one of fp32, fp16, int8"),
        (lambda d: d["runs"][0]["validations"][0]["outcome"].update(status="passed"), "status is 'passed'"),
        (lambda d: d["runs"][0]["validations"][0].update(accuracy=None), "ok with accuracy None"),
        (lambda d: d["runs"][0]["validations"][0].update(peak_bytes=0), "what was not measured is None"),
        (lambda d: d["runs"][0]["validations"][0].update(load_ms=-1.0), "load_ms is -1.0"),
        (lambda d: d["runs"][0]["latencies"][0].update(rounds_ms=[[]]), "empty round"),
        (lambda d: d["runs"][0]["conversions"][0].update(path="/etc/passwd"), "path"),
        (lambda d: d["runs"][0]["conversions"][0].update(sha256="abc"), "not 64 hex digits"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_told(change: Callable[[dict[str, Any]], object], says: str) -> None:
    with pytest.raises(RecordError, match=says):
        report_of(changed(change))


def test_a_cell_that_is_not_ok_says_why() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Outcome("unavailable")
    with pytest.raises(ValueError, match="the stage that stopped"):
        Outcome("failed", None, "boom")
    key = CellKey("m", "coreml", "coreml", "int8", "qat", "host")
    accuracy = made_up_run().validations[0].accuracy
    with pytest.raises(ValueError, match="unavailable with accuracy"):
        ValidationRecord(key, Outcome("unavailable", None, "no mac"), accuracy, None, None, None)
