"""The first table: each file beside the float32 file of the same model in the same runtime, and nothing made up."""

from __future__ import annotations

import re
from dataclasses import replace

from made_up_report import made_up_report, made_up_rounds

from pipeline.records.report import Report
from pipeline.report import page as html
from pipeline.report import values as v
from pipeline.report.cells import run_cells
from pipeline.report.tables.beside import beside_float
from pipeline.report.tables.table import as_text
from pipeline.report.values import Value

PLACE, TOP1, FLOAT_TOP1, SIZE, MEDIAN, TIMES_FLOAT, TIMES_CONTROL = range(7)


def rows(report: Report) -> dict[str, tuple[Value, ...]]:
    table = beside_float(report)
    assert table is not None
    return {row[PLACE].text: row for row in table.rows}


def test_int8_stands_beside_float_of_the_same_runtime() -> None:
    report = made_up_report()
    run = report.runs[0]
    cells = {cell.place: cell for cell in run_cells(run) if cell.file.precision == "fp32"}
    row = rows(report)["tflite / litert\nint8 qat"]
    float32 = cells["tflite / litert"]
    assert float32.accuracy is not None
    assert row[FLOAT_TOP1] == v.top1(float32.accuracy)
    assert row[TOP1] != row[FLOAT_TOP1]
    assert float32.conversion is not None
    assert float32.conversion.facts is not None
    assert row[SIZE].text.split("\n")[1] == v.megabytes(float32.conversion.facts.size_bytes).text
    assert float32.latency is not None
    assert float32.latency.rounds_ms is not None
    assert row[MEDIAN].text.split("\n")[1] == v.median(float32.latency.rounds_ms).text.split("\n")[0]
    assert row[TIMES_FLOAT] == v.NOT_MEASURED  # not in the same rounds
    assert "×" in row[TIMES_CONTROL].text


def test_float_of_the_same_rounds_comes_before_that_of_its_own_cell() -> None:
    report = made_up_report()
    run = report.runs[0]
    timed = next(t for t in run.latencies if t.key.runtime == "litert" and t.key.precision == "int8")
    floating = made_up_rounds(50.0, 3)
    beside = replace(
        timed, float_key=replace(timed.key, precision="fp32", source="float"), float_rounds_ms=floating, float_note=""
    )
    latencies = tuple(beside if t is timed else t for t in run.latencies)
    row = rows(replace(report, runs=(replace(run, latencies=latencies), *report.runs[1:])))["tflite / litert\nint8 qat"]
    own = v.median(timed.rounds_ms or ()).text.split("\n")
    assert row[MEDIAN].text.split("\n") == [own[0], v.median(floating).text.split("\n")[0], own[1]]
    assert "×" in row[TIMES_FLOAT].text


def test_without_float_files_the_figures_are_not_measured() -> None:
    report = made_up_report()
    run = report.runs[0]
    int8 = replace(
        run,
        conversions=tuple(c for c in run.conversions if c.precision == "int8"),
        validations=tuple(x for x in run.validations if x.key.precision == "int8"),
        latencies=tuple(x for x in run.latencies if x.key.precision == "int8"),
    )
    row = rows(replace(report, runs=(int8,)))["executorch\nint8 qat"]
    assert [row[n] for n in (FLOAT_TOP1, TIMES_FLOAT)] == [v.NOT_MEASURED] * 2
    assert [row[n].text.split("\n")[1] for n in (SIZE, MEDIAN)] == ["not measured"] * 2
    floats = replace(run, conversions=(), validations=(), latencies=())
    assert beside_float(replace(report, runs=(floats,))) is None


def test_no_figure_is_cut_off_in_a_terminal() -> None:
    report = made_up_report()
    table = beside_float(report)
    assert table is not None
    printed = as_text([table])
    for value in (value for row in table.rows for value in row):
        for figure in re.findall(r"\d+\.\d\d(?:%|×| ms| MB)", value.text):
            assert figure in printed, figure


def test_it_is_the_first_table_of_every_kind_of_report() -> None:
    report = made_up_report()
    for tables in (html.all_tables(report), html.terminal_tables(report)):
        assert tables[0] == beside_float(report)
    page = html.render(report)
    assert page.index('id="beside-float32"') < page.index('id="overview"')
