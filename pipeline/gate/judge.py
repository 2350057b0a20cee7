"""Judge a run against a baseline: a verdict for every cell and rule, and the exit code that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.errors import EdgeT2TError, InconclusiveError, NotComparableError, RegressedError
from pipeline.gate.baseline import RunFacts
from pipeline.gate.records import CellVerdict, Finding, GateResult, Verdict
from pipeline.gate.rule import Pair, Rule, pairs
from pipeline.gate.rules import RULES
from pipeline.gate.settings import RuleSetting, Settings
from pipeline.gate.tables import detail
from pipeline.report.values import flat

#: One-sided, of each family of tests: 2.5% for accuracy and 2.5% for timing, so 5% for a check as a whole.
FALSE_ALARMS = 0.025
DECIDED = ("pass", "regressed", "inconclusive")


def judge(now: RunFacts, base: RunFacts, settings: Settings, rules: Mapping[str, Rule] = RULES) -> GateResult:
    """Every rule in force on every cell of both.

    Chance can make any one test raise an alarm. The tests of a family share FALSE_ALARMS equally (Bonferroni), and the
    intervals have the confidence that goes with it: two-sided, 1 - 2 x level.

    Raises:
        ValueError: runs of two models.
    """
    if now.model != base.model:
        raise ValueError(f"a run of {now.model} against a baseline of {base.model}")
    chosen = settings.for_model(now.model)
    cells = pairs(now, base)
    # A first pass tells which rules decide by a test; what is a test does not depend on its level.
    tests: Counter[str] = Counter(
        family
        for pair in cells
        for finding in _findings(pair, chosen, rules, {})
        if (family := rules[finding.rule].family) and finding.verdict in DECIDED
    )
    levels = {family: FALSE_ALARMS / count for family, count in tests.items()}
    return GateResult(
        run_id=now.run_id,
        baseline_run_id=base.run_id,
        model=now.model,
        cells=tuple(CellVerdict(pair.key, _findings(pair, chosen, rules, levels)) for pair in cells),
        notes=_notes(now, base),
        tests=dict(tests),
        confidence={family: 1 - 2 * level for family, level in levels.items()},
        inconclusive=settings.inconclusive,
    )


def _findings(
    pair: Pair, chosen: Mapping[str, RuleSetting], rules: Mapping[str, Rule], levels: Mapping[str, float]
) -> tuple[Finding, ...]:
    found = []
    for name, rule in rules.items():
        setting = chosen[name]
        if not setting.enabled:
            continue
        judgement = rule.judge(pair, setting.limits, levels.get(rule.family or "", FALSE_ALARMS))
        if judgement is not None:
            found.append(Finding(rule=name, severity=setting.severity, **vars(judgement)))
    return tuple(found)


def _notes(now: RunFacts, base: RunFacts) -> tuple[str, ...]:
    """What differs and is told, no more: a new training or a new tool is what a gate is there to judge."""
    notes = []
    if now.weights != base.weights:
        notes.append(f"other float weights: {_weights(now)}, in the baseline {_weights(base)}")
    for what, mine, theirs in (
        ("scheme", dict(flat(now.scheme)), dict(flat(base.scheme))),
        ("version", dict(now.versions), dict(base.versions)),
        ("machine", dict(now.host), dict(base.host)),
    ):
        notes += [
            f"{what}: {key} {mine.get(key, 'not there')}, in the baseline {theirs.get(key, 'not there')}"
            for key in {**theirs, **mine}
            if mine.get(key) != theirs.get(key)
        ]
    return tuple(notes)


def _weights(facts: RunFacts) -> str:
    digest = facts.weights.sha256
    return f"{facts.weights.source} ({digest[:12] if digest else 'no file'})"


def error_of(result: GateResult) -> EdgeT2TError | None:
    """Regressed before missing and refused, these before inconclusive: the code says the worst that is known."""
    verdict = result.verdict
    if verdict is None:
        return NotComparableError(
            "nothing was judged: no cell of the run has figures that the rules in force could be held against"
        )
    if verdict == "regressed":
        return RegressedError(_message(result, "regressed"))
    if verdict in ("missing", "refused"):
        return NotComparableError(_message(result, "missing", "refused"))
    if verdict == "inconclusive" and result.inconclusive == "fail":
        return InconclusiveError(_message(result, "inconclusive"))
    return None


def _message(result: GateResult, *verdicts: Verdict) -> str:
    found = [(key, f) for key, f in result.findings(*verdicts) if f.severity == "fail"]
    lines = [
        f"{key.label}: {f.rule}: {f.sentence}{f' ({figures})' if (figures := detail(f)) else ''}; {f.next_step}"
        for key, f in found
    ]
    cells = len({key for key, _ in found})
    return f"{cells} of {len(result.cells)} cells {' or '.join(verdicts)}:\n  " + "\n  ".join(lines)
