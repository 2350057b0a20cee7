"""A gate's result in, the error that stands for it out; none if all is passed."""

from __future__ import annotations

from pipeline.errors import EdgeT2TError, InconclusiveError, NotComparableError, RegressedError
from pipeline.reports.gate_record import GateResult, Verdict
from pipeline.reports.gate_values import detail


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
