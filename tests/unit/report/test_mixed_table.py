"""The search for float layers in the report and in the gate, by figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gate_facts import CELL, cell, run_facts
from made_up_report import made_up_report, made_up_run, report_of, terminal_text

from pipeline.gate.judge import judge
from pipeline.gate.settings import settings_of
from pipeline.records.mixed import QDQ, CellDrop, MixedRecord, RankedLayer, Trial
from pipeline.records.report import report_to_json
from pipeline.report import page as html
from pipeline.report.tables.mixed import mixed_precision

RECORD = MixedRecord(
    program_sha256="ab" * 32,
    layers=30,
    float_layers=("blocks.0.mlp.fc1", "head"),
    given=("head",),
    float_parameters=250,
    parameters=1000,
    budget_pp=0.5,
    ranking_images=16,
    ranking=(RankedLayer("blocks.0.mlp.fc1", 0.01), RankedLayer("head", 0.02)),
    trials=(
        Trial("torch", ("head",), (CellDrop(QDQ, 400, 6, 2),), None),
        Trial("torch", ("blocks.0.mlp.fc1", "head"), (CellDrop(QDQ, 400, 2, 1),), 3.0),
        Trial(
            "targets",
            ("blocks.0.mlp.fc1", "head"),
            (CellDrop("executorch int8", 400, 3, 1, 5_000_000), CellDrop("tflite litert int8", 400, 0, 2, 4_800_000)),
            60.0,
            ("coreml: no Core ML runtime on linux",),
        ),
    ),
)


def test_every_trial_has_its_counts_its_drop_and_its_verdict() -> None:
    table = mixed_precision(replace(made_up_run(), mixed=RECORD))
    assert table is not None
    rows = [[value.text.split("\n")[0] for value in row] for row in table.rows]
    # 4 of 400 images net are 1 point, 1 is 0.25, 2 are 0.5: just the budget; -2 are a gain of 0.5
    assert [(row[1], row[2], row[3], row[5], row[6]) for row in rows] == [
        (QDQ, "6 / 2", "1.00", "–", "no"),
        (QDQ, "2 / 1", "0.25", "–", "yes"),
        ("executorch int8", "3 / 1", "0.50", "5.00 MB", "yes"),
        ("tflite litert int8", "0 / 2", "−0.50", "4.80 MB", "yes"),
    ]
    assert [("the result" in row[0].text) for row in table.rows] == [False, True, True, True]
    notes = " ".join(table.notes)
    assert "2 of 30 int8 layers taken out after training, 25.0% of their weights: blocks.0.mlp.fc1, head" in notes
    assert "coreml: no Core ML runtime on linux" in notes
    assert "ranked on 16 images" in notes


def test_the_interval_is_the_paired_one() -> None:
    table = mixed_precision(replace(made_up_run(), mixed=RECORD))
    assert table is not None
    low, high = CellDrop(QDQ, 400, 6, 2).paired.interval_pp()
    assert f"{low:.1f}".replace("-", "−") in table.rows[0][3].text
    assert f"{high:.1f}" in table.rows[0][3].text


def test_all_three_reports_have_the_table_and_runs_without_a_search_do_not() -> None:
    report = made_up_report()
    mixed = replace(report, runs=(replace(report.runs[0], mixed=RECORD), *report.runs[1:]))
    title = f"{report.runs[0].model}: mixed precision"
    for render in (html.render, html.as_markdown, terminal_text):
        assert title.replace("_", "") in render(mixed).replace("_", "").replace("\\", ""), render
        assert title.replace("_", "") not in render(report).replace("_", "").replace("\\", ""), render
    assert report_of(report_to_json(mixed)) == mixed


def test_a_report_that_is_older_than_the_search_is_still_read() -> None:
    report = made_up_report()
    text = report_to_json(report).replace('      "mixed": null', '      "x": null')
    assert text.count('"x": null') == len(report.runs)
    older = text.replace(',\n      "x": null', "")
    assert report_of(older) == report


def test_the_worst_cell_decides_and_layers_must_be_sorted() -> None:
    trial = RECORD.trials[-1]
    assert trial.worst is trial.cells[0]
    assert trial.within(0.5)
    assert not trial.within(0.49)
    with pytest.raises(ValueError, match="not sorted"):
        replace(trial, float_layers=("b", "a"))
    with pytest.raises(ValueError, match="without a trial of its result"):
        replace(RECORD, float_layers=("head",), trials=())
    with pytest.raises(ValueError, match="lack some of"):
        replace(RECORD, given=("other",))


@pytest.mark.parametrize(("meant", "verdict"), [(0, "regressed"), (1, "regressed"), (2, "pass")])
def test_the_gate_allows_just_the_float_layers_of_the_recipe(meant: int, verdict: str) -> None:
    names = ("blocks.0.mlp.fc1", "head")
    now = cell(file={"float_weights": 2, "float_weight_names": names, "meant_float": meant})
    (judged,) = judge(run_facts(now), run_facts(CELL), settings_of({}, {})).cells
    (found,) = [finding for finding in judged.findings if finding.rule == "float_weights"]
    assert found.verdict == verdict
