"""The words, figures and tables of a gate result; the same on the terminal, in Markdown and in JUnit."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from pipeline.gate.baseline import CellFacts, RunFacts
from pipeline.gate.records import VERDICTS, CellVerdict, Finding, GateResult, Judgement, Verdict
from pipeline.records.keys import CellKey
from pipeline.report import values as v
from pipeline.report.tables.table import Column, Columns, Table
from pipeline.report.values import NONE_HERE, NOT_MEASURED, Value

#: In which tint of the report's tables a verdict stands.
KINDS: dict[Verdict | None, v.Kind] = {
    "pass": "text",
    "new": "text",
    "inconclusive": "unavailable",
    "refused": "unavailable",
    "missing": "failed",
    "regressed": "failed",
    None: "not measured",
}


def verdicts(result: GateResult) -> Table:
    """One row a cell: its verdict and what the images say."""
    title = f"{result.model}: run {result.run_id} against the baseline of {result.baseline_run_id}"
    tests = (
        f"{count} tests of {family} share the false alarms: confidence of each {100 * result.confidence[family]:.4g}%"
        for family, count in result.tests.items()
    )
    return Table.of(title, VERDICT_COLUMNS, result.cells, notes=(*tests, *result.notes))


def _by(rule: str, of: Callable[[Finding], Any]) -> Callable[[CellVerdict], Any]:
    """A figure of what one rule found in a cell; not measured if it found nothing."""

    def figure(cell: CellVerdict) -> Any:
        found = next((found for found in cell.findings if found.rule == rule), None)
        return None if found is None else of(found)

    return figure


def _passed(cell: CellVerdict) -> Value:
    passed = sum(found.verdict == "pass" for found in cell.findings)
    return Value(f"{passed} of {sum(found.verdict is not None for found in cell.findings)}")


def _with_interval(found: Finding) -> Value | None:
    return None if found.now is None else Value(f"{figure(found.now, found.unit, signed=True)}\n{ends(found)}")


def _agreement(found: Finding) -> Value | None:
    if found.now is None or found.unit == "%":
        return _with_interval(found)
    return Value(figure(0.0 - found.now, "pp", signed=True))


VERDICT_COLUMNS: Columns[CellVerdict] = (
    Column("cell", lambda cell: cell.key.label.replace(", ", ",\n")),
    Column("verdict", lambda cell: Value(cell.verdict or "not measured", KINDS[cell.verdict])),
    Column("drop in top-1", _by("drop", _with_interval)),
    Column("n", _by("drop", lambda found: found.n), lambda n: Value(str(n))),
    Column("smallest detectable", _by("drop", lambda found: found.detectable), lambda drop: Value(figure(drop, "pp"))),
    Column("change in agreement", _by("agreement", _agreement)),
    Column("latency", lambda cell: NONE_HERE if cell.key.simulated else _by("latency", _with_interval)(cell)),
    Column("rules passed", _passed),
)


def findings(result: GateResult) -> Table | None:
    """One row for each finding that is more than a pass; None if there is none."""
    found = open_findings(result)
    return Table.of("What is not passed", FINDING_COLUMNS, found, len(FINDING_COLUMNS)) if found else None


Open = tuple[tuple[CellKey, ...], Finding]
FINDING_COLUMNS: Columns[Open] = (
    Column("verdict", lambda row: Value(verdict_words(row[1]), KINDS[row[1].verdict])),
    Column("rule", lambda row: row[1].rule),
    Column("cell", lambda row: "\n".join(key.label for key in row[0])),
    Column("what was seen", lambda row: "\n".join(filter(None, (row[1].sentence, detail(row[1]))))),
    Column("what to do", lambda row: row[1].next_step),
)


def open_findings(result: GateResult) -> tuple[Open, ...]:
    """Findings that are more than a pass, worst first; cells of which a rule says the very same stand together."""
    same: dict[Finding, list[CellKey]] = {}
    for key, found in result.findings("regressed", "missing", "refused", "inconclusive", "new", None):
        same.setdefault(found, []).append(key)
    order = sorted(same, key=lambda found: -1 if found.verdict is None else VERDICTS.index(found.verdict), reverse=True)
    return tuple((tuple(same[found]), found) for found in order)


DIGITS = {"pp": 2, "%": 2, "×": 3}  # other units are counts


def figure(value: float | None, unit: str, signed: bool = False) -> str:
    """ "+0.55 pp", "98.61%", "1.034×", "3"; not measured for None."""
    if value is None:
        return "not measured"
    sign = "+" if signed and unit == "pp" else ""
    text = f"{value:{sign}.{DIGITS.get(unit, 0)}f}"
    return f"{text}{unit}" if unit in ("%", "×") else f"{text} pp" if unit == "pp" else text


def ends(judged: Judgement) -> str:
    """ "-0.28 to +1.39"; not measured without an interval."""
    if judged.low is None:
        return "not measured"
    both = (figure(end, judged.unit, signed=True) for end in (judged.low, judged.high))
    return " to ".join(end.removesuffix(judged.unit).rstrip() for end in both)


def detail(found: Finding) -> str:
    """All figures of a finding on one line: now, baseline, budget, interval, n, smallest detectable drop."""
    baseline = None if found.unit == "pp" else found.baseline
    unit = f" {found.unit}" if found.unit == "pp" else found.unit
    parts = (
        ("now", found.now, figure(found.now, found.unit, signed=True)),
        ("baseline", baseline, figure(baseline, found.unit)),
        ("budget", found.budget, figure(found.budget, found.unit)),
        ("interval", found.low, f"{ends(found)}{unit} ({100 * (found.confidence or 0):.4g}%)"),
        ("n", found.n, found.n),
        ("smallest detectable drop", found.detectable, figure(found.detectable, found.unit)),
    )
    return ", ".join(f"{name} {text}" for name, value, text in parts if value is not None)


def verdict_words(found: Finding) -> str:
    """ "regressed", "regressed, a warning only", "not measured"."""
    word = found.verdict or "not measured"
    return f"{word}, a warning only" if found.severity == "warn" and found.verdict not in ("pass", None) else word


def baseline_table(old: RunFacts | None, new: RunFacts) -> Table:
    """One row a cell; "old → new" where a figure moves, one figure where it does not."""
    before = {cell.key: cell for cell in old.cells} if old else {}
    after = {cell.key: cell for cell in new.cells}

    def moved(header: str, text: Callable[[CellFacts], str | None]) -> Column[CellKey]:
        return Column(header, lambda key: _both(before.get(key), after.get(key), text))

    title = f"baseline of {new.model}: run {new.run_id}" + (f" in place of {old.run_id}" if old else "")
    columns: Columns[CellKey] = (Column("cell", lambda key: key.label), *(moved(*item) for item in FIGURES.items()))
    return Table.of(title, columns, {**before, **after}, notes=_notes(old, new))


def _both(old: CellFacts | None, new: CellFacts | None, text: Callable[[CellFacts], str | None]) -> Value:
    texts = [None if cell is None else text(cell) or "not measured" for cell in (old, new)]
    before, after = texts
    if before is None or before == after:  # a first baseline, a new cell, or no change
        return NONE_HERE if after is None else NOT_MEASURED if after == "not measured" else Value(after)
    return Value(f"{before}\n→ {after or 'gone'}")


def _undelegated(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.undelegated is None else str(cell.file.undelegated)


def _scales_lost(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.scales_total is None else str(cell.file.scales_lost)


def _latency(cell: CellFacts) -> str | None:
    if cell.timing is None or cell.timing.to_control is None:
        return None
    return f"{statistics.median(cell.timing.to_control):.3f}×"


#: Of a cell of the baseline; None where it was not measured.
FIGURES: dict[str, Callable[[CellFacts], str | None]] = {
    "outcome": lambda cell: cell.outcome.status,
    "top-1": lambda cell: f"{cell.scored.top1} of {cell.scored.n}" if cell.scored else None,
    "agreement": lambda cell: f"{cell.scored.same} of {cell.scored.n}" if cell.scored else None,
    "size": lambda cell: f"{cell.file.size_bytes / 1e6:.3f} MB" if cell.file else None,
    "peak memory": lambda cell: None if cell.peak_bytes is None else f"{cell.peak_bytes / 1e6:.1f} MB",
    "undelegated": _undelegated,
    "scales lost": _scales_lost,
    "× MobileNetV2": _latency,
}


def _notes(old: RunFacts | None, new: RunFacts) -> tuple[str, ...]:
    if old is None:
        return ()
    notes = []
    if old.images != new.images or old.num_classes != new.num_classes:
        notes.append(f"other images: {old.images.name}, {old.images.n_val} → {new.images.name}, {new.images.n_val}")
    if old.weights != new.weights:
        notes.append(f"other float weights: {old.weights.sha256 or 'no file'} → {new.weights.sha256 or 'no file'}")
    return tuple(notes)
