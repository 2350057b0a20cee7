"""A finding in, the words and figures that a reader sees out; the same on the terminal, in Markdown and in JUnit."""

from __future__ import annotations

from pipeline.reports.gate_record import Finding, Judgement

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
