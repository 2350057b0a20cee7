"""Whether the cell is there at all: both outcomes in, a judgement out."""

from __future__ import annotations

from pipeline.gate.baseline import CellFacts
from pipeline.gate.pair import Limits, Pair
from pipeline.gate.records import Judgement


def judge(pair: Pair, limits: Limits, level: float) -> Judgement | None:
    """Missing if the baseline has answers of it and the run has none; new the other way round."""
    if pair.scored_base and pair.scored_now:
        return Judgement(verdict="pass", sentence="ran, as in the baseline")
    if pair.scored_base:
        return Judgement(
            verdict="missing",
            sentence=f"the baseline has its answers, this run has not: {_state(pair.now)}",
            next_step="run convert and validate for it, or take it out of the baseline with check --update",
        )
    if pair.scored_now:
        return Judgement(
            verdict="new",
            sentence=f"in the baseline it is {_state(pair.base)}" if pair.base else "not in the baseline",
            next_step="look at its figures, then take it in with check --update",
        )
    return Judgement(verdict=None, sentence=f"{_state(pair.now)}; in the baseline: {_state(pair.base)}")


def _state(cell: CellFacts | None) -> str:
    if cell is None:
        return "not there"
    reason = " ".join((cell.outcome.reason or "").split())
    stage = f" at {cell.outcome.stage}" if cell.outcome.status == "failed" else ""
    return f"{cell.outcome.status}{stage}: {reason}"
