"""The report as terminal tables, Markdown and HTML: every figure with its n, nothing invented, nothing smuggled in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up_report import N, made_up_report, made_up_run, terminal_text

from pipeline.metrics.accuracy import wilson_percent
from pipeline.records.report import Report
from pipeline.report import page as html
from pipeline.report.cells import cells, peak_memory
from pipeline.report.page import REPORT_FILES, write_report

HOSTILE = "<script>alert(1)</script>|`$x$`"


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up_report()


@pytest.fixture(scope="module")
def rendered(report: Report) -> dict[str, str]:
    return texts(report)


@pytest.fixture(scope="module")
def page(rendered: dict[str, str]) -> str:
    return rendered["html"]


def named(model: str) -> Report:
    """A report whose model has a name that markup could take for its own."""
    report = made_up_report()
    run = report.runs[0]
    return replace(
        report,
        runs=(
            replace(
                run,
                model=model,
                conversions=tuple(replace(c, model=model) for c in run.conversions),
                validations=tuple(replace(x, key=replace(x.key, model=model)) for x in run.validations),
                latencies=tuple(replace(x, key=replace(x.key, model=model)) for x in run.latencies),
            ),
            *report.runs[1:],
        ),
    )


def texts(report: Report) -> dict[str, str]:
    return {
        "terminal": terminal_text(report, 140),
        "markdown": html.as_markdown(report),
        "html": html.render(report),
    }


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_figures_stand_with_their_interval_and_n(kind: str, report: Report, rendered: dict[str, str]) -> None:
    text = rendered[kind]
    right = next(v.accuracy for v in report.runs[0].validations if v.accuracy)
    low, high = wilson_percent(right.top1, right.n)
    assert f"{right.top1_percent:.2f}%" in text
    assert f"{low:.1f}–{high:.1f}, n {N}" in text
    assert "n 200" in text  # samples of a median
    assert "n 10" in text  # rounds of a ratio


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_what_was_not_measured_says_so(kind: str, rendered: dict[str, str]) -> None:
    text = rendered[kind]
    assert "unavailable" in text
    assert "no Core ML runtime on linux" in text
    assert "not measured" in text
    assert "failed at" in text
    assert "aten.foo.default" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_core_ml_row_has_no_figure_for_its_accuracy(report: Report) -> None:
    rows = [line for line in html.as_markdown(report).split("## ")[2].splitlines() if "coreml" in line]
    assert len(rows) == 4
    for row in rows:
        top1, agreement, median, times = (cell.strip() for cell in row.strip("|").split("|")[4:8])
        assert top1.startswith("unavailable")
        assert not re.search(r"\d%|\d ms|×", top1 + agreement + median + times)


def test_a_control_that_was_timed_only_beside_another_model_shows_those_samples(report: Report) -> None:
    subject, control = report.runs
    text = html.as_markdown(replace(report, runs=(subject, replace(control, latencies=()))))
    (row,) = [
        line for line in text.split("## ")[2].splitlines() if re.match(r"\| mobilenet_v2 .*executorch.*qat", line)
    ]
    rounds = next(
        t.control_rounds_ms for t in subject.latencies if t.key.runtime == "executorch" and t.key.source == "qat"
    )
    assert rounds is not None
    assert f"{np.median(np.concatenate(rounds)):.2f} ms" in row
    assert "control" in row


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_memory_and_load_time_are_shown_and_what_was_not_measured_says_so(
    kind: str, rendered: dict[str, str], report: Report
) -> None:
    for text in ("Peak memory", "25.4 MB", "30.00 ms"):
        assert text in rendered[kind].replace("\n", " ")
    rows = {cell.place + cell.file.variant: peak_memory(cell).text for cell in cells(report) if cell.model != "m"}
    assert rows["tflite / litertint8 qat"] == "25.4 MB"
    assert rows["executorchint8 qat"] == "not measured"


def test_a_terminal_of_eighty_columns_keeps_every_figure_whole(report: Report) -> None:
    wide, narrow = terminal_text(report, 160), terminal_text(report, 80)
    for figure in set(re.findall(r"\d+\.\d\d%", wide)):
        assert figure in narrow


def test_names_cannot_break_markdown() -> None:
    text = html.as_markdown(named(HOSTILE))
    assert "<script>" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) in {len(re.split(r"(?<!\\)\|", row)) for row in text.splitlines() if "---" in row}


def test_names_cannot_smuggle_markup_into_the_page() -> None:
    assert "<script>alert" not in html.render(named(HOSTILE))


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data", "srcset") and value and not value.startswith("#"):
                self.loads.append(value)
            if key == "id" and value:
                self.ids.append(value)


def test_the_page_is_whole_in_itself(page: str) -> None:
    collector = Collector()
    collector.feed(page)
    assert not [load for load in collector.loads if not load.startswith("data:")]
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(collector.ids) == len(set(collector.ids)), "ids of two plots collide"
    assert collector.tags.count("svg") >= 8
    assert {"iframe", "object", "img"}.isdisjoint(collector.tags)


def test_plots_are_well_formed_and_mark_mobilenet(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    labels = {}
    for plot in plots:
        root = ElementTree.fromstring(plot)
        labels[root.attrib["aria-label"]] = " ".join(text for text in root.itertext() if text.strip())
    accuracy = [text for label, text in labels.items() if label.startswith("Top-1 against latency")]
    assert len(accuracy) == 3
    for text in accuracy:
        assert "mobilenet_v2" in text
        assert "t2t_vit_10" in text
    assert any(label.startswith("Artifact sizes") for label in labels)
    assert any(label.startswith("Raw latency samples") for label in labels)


def test_colours_follow_the_theme(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    for plot in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert not re.search(r"#0[1-6a]0\w{3}", plot), "a stand-in colour was not replaced"


def test_three_files_are_written_or_none(report: Report, tmp_path: Path) -> None:
    assert write_report(report, tmp_path) == REPORT_FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(REPORT_FILES)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write_report(report, tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}, "equal reports are equal bytes"


def test_a_run_without_control_or_artifacts_is_still_a_report() -> None:
    run = made_up_run()
    bare = replace(made_up_report(), runs=(replace(run, conversions=(), validations=(), latencies=()),))
    for text in texts(bare).values():
        assert "t2t_vit_10" in text


def test_int8_beside_the_float_file_of_the_same_rounds(report: Report) -> None:
    from pipeline.metrics.latency import ratio_of, round_ratios
    from pipeline.report.tables.latency import latencies

    run = report.runs[0]
    fast = next(t for t in run.latencies if t.key.precision == "int8" and t.rounds_ms)
    slow = tuple(tuple(2.5 * ms for ms in samples) for samples in fast.rounds_ms or ())
    beside = replace(
        fast, float_key=replace(fast.key, precision="fp32", source="float"), float_rounds_ms=slow, float_note=""
    )
    table = latencies(replace(run, latencies=tuple(beside if t is fast else t for t in run.latencies)))
    shown = [row[-1] for row in table.rows]
    assert [value.sort for value in shown if value.sort is not None] == [
        pytest.approx(ratio_of(round_ratios(fast.rounds_ms, slow)).ratio)
    ]
    assert any(value.text.startswith("0.40×") for value in shown)


def test_operators_outside_of_delegates_are_told(report: Report, page: str) -> None:
    section = re.search(r'<section id="delegate-coverage">(.*?)</section>', page, re.DOTALL)
    assert section
    assert "93 + 29, 10 parts" in section[1]
    assert "not in the file" in section[1]
    for operator in ("SOFTMAX", "GELU", "BATCH_MATMUL"):
        assert operator in section[1]
