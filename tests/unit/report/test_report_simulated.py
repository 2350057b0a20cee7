"""Simulated results in a report: an interval over rounding models, always labelled, never beside a latency."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_report import N, made_up_drift, made_up_report, made_up_rounds, report_of, terminal_text

from pipeline.commands.validate import raise_if_below
from pipeline.errors import BelowBarError
from pipeline.metrics.accuracy import Accuracy
from pipeline.records.keys import OK, SIMULATED, CellKey, Outcome
from pipeline.records.latency import LatencyRecord
from pipeline.records.report import Report, report_to_json
from pipeline.records.validation import ValidationRecord
from pipeline.report import page as html
from pipeline.report.cells import run_cells
from pipeline.report.page import all_tables
from pipeline.report.tables.accuracy import overview, range_events
from pipeline.report.tables.latency import latencies
from pipeline.run.cells import cell_key
from targets.types import RangeEvent

MODELS = ("mil-fp32", "mil-fp16", "mil-fp16-accumulate")
#: Right of 360, the same class as the QDQ program, and decibels, by rounding model.
RIGHT, SAME, SQNR = (348, 346, 343), (360, 355, 351), (60.5, 31.2, 27.8)
EVENTS = (
    RangeEvent("powers", "exp", "vanished", 12),
    RangeEvent("ratio", "real_div", "nan", 4),
    RangeEvent("q1", "quantize", "saturated", 7),
    RangeEvent("q2", "quantize", "saturated", 5),
)


def simulations() -> tuple[ValidationRecord, ...]:
    return tuple(
        ValidationRecord(
            CellKey("t2t_vit_10", "coreml", runtime, "int8", "qat", SIMULATED),
            OK,
            Accuracy(N, right, 359),
            made_up_drift(decibels / 2, same - 2),
            made_up_drift(decibels, same),
            9.0,
            EVENTS if runtime == "mil-fp16" else (),
        )
        for runtime, right, same, decibels in zip(MODELS, RIGHT, SAME, SQNR, strict=True)
    )


@pytest.fixture(scope="module")
def report() -> Report:
    made_up = made_up_report()
    run = replace(made_up.runs[0], validations=(*made_up.runs[0].validations, *simulations()))
    return replace(made_up, runs=(run, *made_up.runs[1:]))


def test_rounding_models_are_one_row_with_an_interval(report: Report) -> None:
    (row,) = (r for r in overview(report).rows if SIMULATED in r[1].text)
    assert row[1].text == f"coreml, {SIMULATED}\nint8 qat"
    assert row[4].text == f"{100 * 343 / N:.2f}–{100 * 348 / N:.2f}%\n3 models, n 360"
    assert row[5].text == f"{100 * 351 / N:.2f}–100.00%\n351–360 of 360"
    assert [value.text for value in row[6:]] == ["not measured"] * 2


def test_the_real_runtime_keeps_its_own_row_without_figures(report: Report) -> None:
    (row,) = (r for r in overview(report).rows if r[0].text == "t2t_vit_10" and r[1].text == "coreml\nint8 qat")
    assert row[4].kind == "unavailable"
    assert row[5].kind == "not measured"


def test_distances_are_intervals_too(report: Report) -> None:
    drift = all_tables(report)[2]
    (row,) = (r for r in drift.rows if SIMULATED in r[0].text)
    assert row[4].text == "13.9–30.2 dB\n3 models"
    assert row[6].text == "27.8–60.5 dB\n3 models"


def test_what_left_its_range_is_told_worst_first(report: Report) -> None:
    table = range_events(report.runs[0])
    assert table is not None
    rows = [[value.text for value in row] for row in table.rows]
    assert rows[0][1:] == ["nothing", "0", "–", "–"]
    assert [r[1:] for r in rows[1:4]] == [
        ["not a number", "4", "real_div", "ratio"],
        ["clipped by int8", "12", "quantize", "q1 and 1 more"],
        ["vanished to zero in half precision", "12", "exp", "powers"],
    ]
    assert rows[1][0] == "coreml int8\nmil-fp16"
    assert range_events(made_up_report().runs[0]) is None


@pytest.mark.parametrize("render", [terminal_text, html.as_markdown, html.render])
def test_every_kind_of_report_carries_the_label(render, report: Report) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(render(report).split())
    assert text.count("simulated") >= 3
    assert "no runtime was run" in text
    assert "simulated" not in " ".join(render(made_up_report()).split())


def test_the_terminal_keeps_the_names_of_the_rows(report: Report) -> None:
    lines = terminal_text(report).splitlines()
    assert any("Stage" in line and "SQNR to QDQ" in line for line in lines)
    assert any("coreml" in line and "95.28–96.67%" in line for line in lines)


def test_every_record_carries_the_label_and_comes_back(report: Report) -> None:
    text = report_to_json(report)
    assert text.count(f'"device": "{SIMULATED}"') == len(MODELS)
    assert report_of(text) == report


def test_a_record_of_an_earlier_version_has_no_events(report: Report) -> None:
    import json

    data = json.loads(report_to_json(made_up_report()))
    for run in data["runs"]:
        for record in run["validations"]:
            del record["range_events"]
    assert report_of(json.dumps(data)) == made_up_report()


def test_a_simulation_has_no_latency(report: Report) -> None:
    key = simulations()[0].key
    with pytest.raises(ValueError, match="a simulation has no latency"):
        LatencyRecord(key, OK, 1, (), made_up_rounds(1.0, 0), None, None, "no control")
    assert not [row for row in latencies(report.runs[0]).rows if SIMULATED in row[0].text]
    cell = next(c for c in run_cells(report.runs[0]) if c.simulations)
    assert cell.key is None
    assert cell.latency is None
    assert cell.validation is None


def test_a_simulation_that_failed_gives_its_reason(report: Report) -> None:
    failed = Outcome("failed", "load", "tiny.mlpackage: the MIL reference does not know operator lstm (lstm_0)")
    lost = tuple(ValidationRecord(r.key, failed, None, None, None, None) for r in simulations())
    run = replace(report.runs[0], validations=(*made_up_report().runs[0].validations, *lost))
    (row,) = (r for r in overview(replace(report, runs=(run,))).rows if SIMULATED in r[1].text)
    assert (row[4].text, row[4].detail) == ("failed at load", failed.reason)


def test_the_bar_of_agreement_holds_for_simulations_and_names_them() -> None:
    raise_if_below(97.5, simulations())
    with pytest.raises(
        BelowBarError, match=r"mil-fp16-accumulate int8, simulated \(MIL reference\): 97.50 % \(n=360\)"
    ):
        raise_if_below(97.6, simulations())


def test_plots_show_the_rounding_models_of_the_top1_row(report: Report) -> None:
    page = html.render(report)
    assert "coreml, simulated" in page
    assert f"hollow: {SIMULATED}" in page
    assert "95.28–96.67" in page


def test_the_stage_gives_a_reference_another_place_than_a_runtime() -> None:
    from made_up_report import made_up_conversion

    conversion = made_up_conversion("t2t_vit_10", "coreml", "int8", "qat")
    assert cell_key(conversion, "coreml").device == "host"
    assert cell_key(conversion, "coreml-cpu-only").device == "host"
    assert all(cell_key(conversion, runtime).simulated for runtime in MODELS)
