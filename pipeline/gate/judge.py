"""A run and a baseline in, a verdict for every cell and rule out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pipeline.gate.pair import Pair, pairs
from pipeline.gate.rule import Rule
from pipeline.gate.settings import RuleSetting, Settings
from pipeline.gate.table import RULES
from pipeline.reports.baseline_record import RunFacts
from pipeline.reports.gate_record import CellVerdict, Finding, GateResult
from pipeline.reports.values import flat

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
