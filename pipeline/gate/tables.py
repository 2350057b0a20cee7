"""The words, figures and tables of a gate result; the same on the terminal, in Markdown and in JUnit."""

from __future__ import annotations

from pipeline.gate.records import VERDICTS, CellVerdict, Finding, GateResult, Judgement, Verdict
from pipeline.records.keys import CellKey
from pipeline.report import values as v
from pipeline.report.tables.table import Table
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


def tables(result: GateResult) -> tuple[Table, ...]:
    """Every cell with its verdict; below, every finding that is more than a pass."""
    return tuple(t for t in (verdicts(result), findings(result)) if t is not None)


def verdicts(result: GateResult) -> Table:
    """One row a cell: its verdict and what the images say."""
    header = (
        "cell",
        "verdict",
        "drop in top-1",
        "n",
        "smallest detectable",
        "change in agreement",
        "latency",
        "rules passed",
    )
    rows = tuple(_row(cell) for cell in result.cells)
    title = f"{result.model}: run {result.run_id} against the baseline of {result.baseline_run_id}"
    return Table(title, header, rows, notes=(*_tests(result), *result.notes))


def findings(result: GateResult) -> Table | None:
    """One row for each finding that is more than a pass; None if there is none."""
    rows = tuple(
        (
            Value(verdict_words(found), KINDS[found.verdict]),
            v.words(found.rule),
            v.words("\n".join(key.label for key in cells)),
            v.words("\n".join(filter(None, (found.sentence, detail(found))))),
            v.words(found.next_step),
        )
        for cells, found in open_findings(result)
    )
    header = ("verdict", "rule", "cell", "what was seen", "what to do")
    return Table("What is not passed", header, rows, len(header)) if rows else None


def open_findings(result: GateResult) -> tuple[tuple[tuple[CellKey, ...], Finding], ...]:
    """Findings that are more than a pass, worst first; cells of which a rule says the very same stand together."""
    same: dict[Finding, list[CellKey]] = {}
    for key, found in result.findings("regressed", "missing", "refused", "inconclusive", "new", None):
        same.setdefault(found, []).append(key)
    order = sorted(same, key=lambda found: -1 if found.verdict is None else VERDICTS.index(found.verdict), reverse=True)
    return tuple((tuple(same[found]), found) for found in order)


def _row(cell: CellVerdict) -> tuple[Value, ...]:
    by_rule = {found.rule: found for found in cell.findings}
    drop, speed = by_rule.get("drop"), by_rule.get("latency")
    passed = sum(found.verdict == "pass" for found in cell.findings)
    judged = sum(found.verdict is not None for found in cell.findings)
    return (
        v.words(cell.key.label.replace(", ", ",\n")),
        Value(cell.verdict or "not measured", KINDS[cell.verdict]),
        _with_interval(drop),
        NOT_MEASURED if drop is None or drop.n is None else Value(str(drop.n)),
        NOT_MEASURED if drop is None or drop.detectable is None else Value(figure(drop.detectable, "pp")),
        _agreement(by_rule.get("agreement")),
        NONE_HERE if cell.key.simulated else _with_interval(speed),
        Value(f"{passed} of {judged}"),
    )


def _with_interval(found: Finding | None) -> Value:
    if found is None or found.now is None:
        return NOT_MEASURED
    return Value(f"{figure(found.now, found.unit, signed=True)}\n{ends(found)}")


def _agreement(found: Finding | None) -> Value:
    if found is None or found.now is None:
        return NOT_MEASURED
    if found.unit == "%":
        return _with_interval(found)
    return Value(figure(0.0 - found.now, "pp", signed=True))


def _tests(result: GateResult) -> tuple[str, ...]:
    return tuple(
        f"{count} tests of {family} share the false alarms: confidence of each {100 * result.confidence[family]:.4g}%"
        for family, count in result.tests.items()
    )


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
    if judged.low is None or judged.high is None:
        return "not measured"
    low, high = (
        figure(end, judged.unit, signed=True).removesuffix(judged.unit).rstrip() for end in (judged.low, judged.high)
    )
    return f"{low} to {high}"


def interval(judged: Judgement) -> str:
    """ "-0.28 to +1.39 pp (97.5%)"; not measured without one."""
    if judged.low is None or judged.confidence is None:
        return "not measured"
    space = " " if judged.unit == "pp" else ""
    return f"{ends(judged)}{space}{judged.unit} ({100 * judged.confidence:.4g}%)"


def detail(found: Finding) -> str:
    """All figures of a finding on one line: now, baseline, budget, interval, n, smallest detectable drop."""
    parts = []
    if found.now is not None:
        parts.append(f"now {figure(found.now, found.unit, signed=True)}")
    if found.baseline is not None and found.unit != "pp":
        parts.append(f"baseline {figure(found.baseline, found.unit)}")
    if found.budget is not None:
        parts.append(f"budget {figure(found.budget, found.unit)}")
    if found.low is not None:
        parts.append(f"interval {interval(found)}")
    if found.n is not None:
        parts.append(f"n {found.n}")
    if found.detectable is not None:
        parts.append(f"smallest detectable drop {figure(found.detectable, found.unit)}")
    return ", ".join(parts)


def verdict_words(found: Finding) -> str:
    """ "regressed", "regressed, a warning only", "not measured"."""
    word = found.verdict or "not measured"
    return f"{word}, a warning only" if found.severity == "warn" and found.verdict not in ("pass", None) else word
