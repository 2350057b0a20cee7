"""A whole check: the worst verdict, how tests share the false alarms, and how often chance alone raises one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gate_facts import CELL, IMAGES, KEY, cell, not_run, run_facts, scored, timing

from pipeline.errors import InconclusiveError, NotComparableError, RegressedError
from pipeline.gate.baseline import CellFacts, Scored
from pipeline.gate.judge import error_of, judge
from pipeline.gate.records import VERDICTS, worst
from pipeline.gate.settings import settings_of
from pipeline.metrics.accuracy import Accuracy

DEFAULTS = settings_of({}, {})
RUNTIMES = ("executorch", "litert", "tensorflow", "mil-fp32", "mil-fp16")


def several(*cells: CellFacts) -> list[CellFacts]:
    return [replace(c, key=replace(KEY, runtime=name)) for c, name in zip(cells, RUNTIMES, strict=False)]


REGRESSED = cell(scored=scored(lost=60))
INCONCLUSIVE = cell(scored=scored(lost=22, gained=20))
REFUSED = cell(timing=timing(threads=2))
MISSING = not_run()


@pytest.mark.parametrize(
    ("cells", "verdict", "error"),
    [
        ((CELL, CELL), "pass", None),
        ((CELL, INCONCLUSIVE), "inconclusive", InconclusiveError),
        ((INCONCLUSIVE, REFUSED), "refused", NotComparableError),
        ((REFUSED, MISSING), "missing", NotComparableError),
        ((MISSING, REGRESSED), "regressed", RegressedError),
    ],
)
def test_the_worst_cell_gives_the_exit_code(cells: tuple, verdict: str, error: type | None) -> None:
    result = judge(run_facts(*several(*cells)), run_facts(*several(CELL, CELL)), DEFAULTS)
    assert result.verdict == verdict
    raised = error_of(result)
    assert (raised and type(raised)) == error
    if raised is not None:
        assert verdict in str(raised)


def test_new_cells_pass() -> None:
    result = judge(run_facts(*several(CELL, CELL)), run_facts(*several(CELL)), DEFAULTS)
    assert result.verdict == "new"
    assert error_of(result) is None


def test_inconclusive_can_be_let_pass() -> None:
    lenient = settings_of({}, {}, "pass")
    result = judge(run_facts(INCONCLUSIVE), run_facts(CELL), lenient)
    assert result.verdict == "inconclusive"
    assert error_of(result) is None


def test_a_check_that_judged_nothing_is_no_pass() -> None:
    gone = not_run("unavailable", "no runtime")
    result = judge(run_facts(gone), run_facts(gone), DEFAULTS)
    assert result.verdict is None
    assert isinstance(error_of(result), NotComparableError)


def test_another_model_is_refused_before_anything() -> None:
    other = replace(KEY, model="t2t_vit_10")
    with pytest.raises(ValueError, match="t2t_vit_10 against a baseline of t2t_vit_7"):
        judge(run_facts(cells=(cell(key=other),), model="t2t_vit_10"), run_facts(CELL), DEFAULTS)


def test_the_worst_is_in_the_order_of_the_verdicts() -> None:
    assert worst(VERDICTS) == "regressed"
    assert worst(["pass", None]) == "pass"
    assert worst([None]) is None


def test_tests_of_a_family_share_its_false_alarms() -> None:
    """Two cells with a drop and an agreement each are four tests: 2.5% / 4 on each side."""
    facts = run_facts(*several(CELL, CELL))
    result = judge(facts, facts, DEFAULTS)
    assert result.tests == {"accuracy": 4, "timing": 4}
    assert result.confidence["accuracy"] == pytest.approx(1 - 2 * 0.025 / 4)
    assert {f.confidence for _, f in result.findings("pass") if f.rule == "drop"} == {result.confidence["accuracy"]}


def test_refused_and_unmeasured_rules_take_no_share() -> None:
    now = run_facts(*several(CELL, cell(scored=scored(images="cd" * 32), timing=None)))
    result = judge(now, run_facts(*several(CELL, CELL)), DEFAULTS)
    assert result.tests == {"accuracy": 2, "timing": 2}


def _random(rng: np.random.Generator, right: np.ndarray, flip: float, drop: float) -> np.ndarray:
    """Another rounding of the same model: `flip` of the images change either way, `drop` more become wrong."""
    chance = rng.random(len(right))
    wrong_share, right_share = 1 - right.mean(), right.mean()
    now = right.copy()
    now[right & (chance < (flip / 2 + drop) / right_share)] = False
    now[~right & (chance < flip / 2 / wrong_share)] = True
    return now


@pytest.mark.parametrize(("drop", "low", "high"), [(0.0, 0.0, 0.05), (0.02, 0.95, 1.0)])
def test_false_alarms_of_five_cells_are_rare_and_two_points_are_found(drop: float, low: float, high: float) -> None:
    """200 repeats at n = 2000, five cells of which none or one lost 2 points; 1% of the images flip by chance."""
    rng = np.random.default_rng(0)
    n = 2000
    only_answers = settings_of({}, {"latency": {"enabled": False}, "int8_speed": {"enabled": False}})
    alarms = 0
    for _ in range(200):
        then, now = [], []
        for name in RUNTIMES:
            right, agrees = rng.random(n) < 0.9, rng.random(n) < 0.99
            key = replace(KEY, runtime=name)
            lost = drop if name == RUNTIMES[0] else 0.0
            for side, answers in ((then, right), (now, _random(rng, right, 0.01, lost))):
                facts = Scored.of(IMAGES, Accuracy(n, int(answers.sum()), None), answers, "qdq", agrees, None)
                side.append(cell(key=key, scored=facts))
        alarms += judge(run_facts(*now), run_facts(*then), only_answers).verdict == "regressed"
    assert low <= alarms / 200 <= high
