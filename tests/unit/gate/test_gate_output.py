"""What a check prints and writes: JUnit that parses whatever the names are, JSON, Markdown and the update's table."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from gate_facts import CELL, KEY, cell, not_run, run_facts, scored, timing

from pipeline.gate import outputs
from pipeline.gate.baseline import CellFacts
from pipeline.gate.judge import judge
from pipeline.gate.records import GateResult
from pipeline.gate.rules import RULES
from pipeline.gate.settings import settings_of
from pipeline.gate.tables import baseline_table
from pipeline.records.keys import Outcome

NASTY = 'a <b> & "c" ]]> | ` \x00 \x1b[31m \ud800 é \N{FACE WITH TEARS OF JOY}\nline two'


def checked(base: CellFacts, now: CellFacts, inconclusive: str = "fail", **options: dict) -> GateResult:
    return judge(run_facts(now), run_facts(base), settings_of({}, options, inconclusive))


def case(result: GateResult, rule: str) -> ElementTree.Element:
    root = ElementTree.fromstring(outputs.as_junit(result))
    (found,) = [c for c in root.iter("testcase") if c.get("name") == rule]
    return found


def test_junit_has_one_test_case_a_cell_and_rule_and_true_totals() -> None:
    result = checked(CELL, cell(scored=scored(lost=60), timing=None))
    root = ElementTree.fromstring(outputs.as_junit(result))
    names = [c.get("name") for c in root.iter("testcase")]
    assert names == [name for name in RULES if name != "range"]
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("name") == KEY.label
    for element in (root, suite):
        assert element.get("tests") == "12"
        assert (element.get("failures"), element.get("errors"), element.get("skipped")) == ("1", "0", "2")


@pytest.mark.parametrize(
    ("base", "now", "rule", "element"),
    [
        (CELL, cell(scored=scored(lost=60)), "drop", "failure"),
        (CELL, cell(scored=scored(lost=22, gained=20)), "drop", "failure"),
        (CELL, not_run(), "outcome", "error"),
        (CELL, cell(timing=timing(threads=2)), "latency", "error"),
        (CELL, cell(timing=None), "latency", "skipped"),
        (CELL, CELL, "drop", "system-out"),
        (not_run("unavailable"), CELL, "outcome", "system-out"),
    ],
)
def test_junit_maps_verdicts(base: CellFacts, now: CellFacts, rule: str, element: str) -> None:
    (child,) = case(checked(base, now), rule)
    assert child.tag == element


def test_junit_skips_warnings_and_inconclusives_that_may_pass() -> None:
    wide = cell(scored=scored(lost=22, gained=20))
    assert case(checked(CELL, wide, "pass"), "drop")[0].tag == "skipped"
    warned = case(checked(CELL, cell(scored=scored(lost=60)), drop={"severity": "warn"}), "drop")
    assert warned[0].tag == "skipped"
    assert "a warning only" in (warned[0].get("message") or "")


def test_a_failure_says_figures_and_what_to_do() -> None:
    failure = case(checked(CELL, cell(scored=scored(lost=60))), "drop")[0]
    assert failure.text is not None
    for text in ("60 images lost", "now +3.00 pp", "budget 0.50 pp", "n 2000", "smallest detectable drop", "--explain"):
        assert text in failure.text, text


def test_every_output_survives_every_character() -> None:
    now = replace(not_run(), outcome=Outcome("failed", "load", NASTY), key=replace(KEY, runtime=NASTY))
    base = replace(CELL, key=now.key)
    result = checked(base, now)
    text = outputs.as_junit(result)
    text.encode()  # what is written has no lone surrogate
    assert len(ElementTree.fromstring(text).findall(".//testcase")) == len(result.cells[0].findings)
    markdown = outputs.as_markdown(result)
    markdown.encode()
    assert "<b>" not in markdown
    assert "\x1b" not in markdown + text
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert rows
    unescaped = [row.replace("\\|", "").count("|") for row in rows]
    assert set(unescaped) == {9, 6}  # 8 and 5 columns


def test_json_has_every_figure_and_the_exit_code() -> None:
    data = json.loads(outputs.as_json(checked(CELL, cell(scored=scored(lost=60), timing=None)), 9))
    assert (data["verdict"], data["exit_code"]) == ("regressed", 9)
    (one,) = data["cells"]
    assert one["verdict"] == "regressed"
    by_rule = {f["rule"]: f for f in one["findings"]}
    assert by_rule["drop"]["now"] == 3.0
    assert by_rule["drop"]["detectable"] > 0
    assert by_rule["latency"]["verdict"] is None
    assert by_rule["latency"]["now"] is None


def test_the_terminal_shows_n_interval_and_smallest_detectable_drop(capsys: pytest.CaptureFixture[str]) -> None:
    result = checked(CELL, cell(scored=scored(lost=60)))
    outputs.show(result)
    printed = capsys.readouterr().out
    drop = next(f for _, f in result.findings("regressed"))
    for text in ("+3.00 pp", f"{drop.low:+.2f} to {drop.high:+.2f} pp (", "2000", f"{drop.detectable:.2f} pp", "→"):
        assert text in printed, text
    assert "regressed  drop: tflite litert int8" in printed


def test_what_the_rule_says_of_several_cells_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [replace(CELL, key=replace(KEY, runtime=name), timing=None) for name in ("litert", "tensorflow")]
    outputs.show(judge(run_facts(*cells), run_facts(*cells), settings_of({}, {})))
    printed = capsys.readouterr().out
    assert printed.count("no latency beside MobileNetV2 in this run") == 1
    assert "tflite litert int8; tflite tensorflow int8" in printed


def test_an_update_shows_old_and_new_side_by_side() -> None:
    table = baseline_table(run_facts(CELL), run_facts(cell(scored=scored(lost=3), file={"scales_found": 250})))
    ((_, *values),) = table.rows
    texts = dict(zip(table.header[1:], (value.text for value in values), strict=True))
    assert texts["top-1"] == "1800 of 2000\n→ 1797 of 2000"
    assert texts["scales lost"] == "0\n→ 5"
    assert texts["size"] == "4.500 MB"
    assert texts["peak memory"] == "20.0 MB"


def test_an_update_shows_cells_that_come_and_go() -> None:
    other = replace(CELL, key=replace(KEY, runtime="tensorflow"))
    table = baseline_table(run_facts(CELL), run_facts(other))
    gone, come = table.rows
    assert gone[2].text == "1800 of 2000\n→ gone"
    assert come[2].text == "1800 of 2000"
    assert baseline_table(None, run_facts(CELL)).rows[0][2].text == "1800 of 2000"
