"""Every rule of the gate: it decides its own case, nothing else does, and without the rule the case is passed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from gate_facts import CELL, FILE, HOST, KEY, N, cell, not_run, run_facts, scored, timing

from pipeline.gate.baseline import CellFacts, Instructions
from pipeline.gate.judge import judge
from pipeline.gate.records import Finding, Verdict
from pipeline.gate.rules import RULES
from pipeline.gate.settings import Settings, settings_of
from pipeline.records.keys import SIMULATED

NO_EVENTS = {"nan": 0, "overflowed": 0}


@dataclass(frozen=True)
class Case:
    """One cell then and now, and what is said of it."""

    base: CellFacts | None
    now: CellFacts | None
    verdict: Verdict


#: For each rule one cell that this rule alone finds fault with.
CASES: dict[str, Case] = {
    "outcome": Case(CELL, not_run(), "missing"),
    "drop": Case(CELL, cell(scored=scored(lost=40)), "regressed"),
    "agreement": Case(CELL, cell(scored=scored(disagree=40)), "regressed"),
    "range": Case(
        cell(scored=scored(events=NO_EVENTS)), cell(scored=scored(events={"nan": 3, "overflowed": 0})), "regressed"
    ),
    "undelegated": Case(CELL, cell(file={"undelegated": 3}), "regressed"),
    "partitions": Case(CELL, cell(file={"partitions": 2}), "regressed"),
    "float_weights": Case(CELL, cell(file={"float_weights": 1, "float_weight_names": ("head",)}), "regressed"),
    "scales": Case(CELL, cell(file={"scales_found": 254, "scales_missing": ("head.input",)}), "regressed"),
    "size": Case(CELL, cell(file={"size_bytes": 4_600_000}), "regressed"),
    "memory": Case(CELL, cell(peak_bytes=22_100_000), "regressed"),
    "latency": Case(CELL, cell(timing=timing(3.4, seed=1)), "regressed"),
    "int8_speed": Case(CELL, cell(timing=timing(3.0, over_float=1.1, seed=1)), "regressed"),
    "instructions": Case(CELL, cell(instructions=Instructions(1_050_001, "made up")), "regressed"),
}


def settings(**rules: dict[str, Any]) -> Settings:
    return settings_of({"check": {"rules": rules}}, {})


def found(base: CellFacts | None, now: CellFacts | None, rule: str, **rules: dict[str, Any]) -> Finding:
    """What `rule` says."""
    (verdict,) = judge(_run(now), _run(base), settings(**rules)).cells
    (finding,) = [f for f in verdict.findings if f.rule == rule]
    return finding


def said(base: CellFacts | None, now: CellFacts | None, **rules: dict[str, Any]) -> set[str]:
    (verdict,) = judge(_run(now), _run(base), settings(**rules)).cells
    return {f.rule for f in verdict.findings}


def _run(facts: CellFacts | None):  # type: ignore[no-untyped-def]
    return run_facts(*([facts] if facts else []))


def test_every_rule_has_a_case() -> None:
    assert list(CASES) == list(RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_alone_decides_its_case(rule: str) -> None:
    case = CASES[rule]
    with_all = judge(_run(case.now), _run(case.base), settings())
    assert with_all.cells[0].verdict == case.verdict
    assert [f.rule for f in with_all.cells[0].findings if f.verdict == case.verdict] == [rule]

    others = {name: r for name, r in RULES.items() if name != rule}
    without = judge(_run(case.now), _run(case.base), settings(), others)
    assert without.cells[0].verdict in ("pass", None)  # None where nothing else can be judged of a cell that is gone


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_can_be_off_or_warn_only(rule: str) -> None:
    case = CASES[rule]
    off = judge(_run(case.now), _run(case.base), settings(**{rule: {"enabled": False}}))
    assert off.verdict in ("pass", None)
    assert all(f.rule != rule for f in off.cells[0].findings)
    warned = judge(_run(case.now), _run(case.base), settings(**{rule: {"severity": "warn"}}))
    assert warned.verdict in ("pass", None)
    assert [f.verdict for f in warned.cells[0].findings if f.rule == rule] == [case.verdict]


def test_no_change_passes_every_rule() -> None:
    base = cell(scored=scored(events=NO_EVENTS))
    result = judge(run_facts(base), run_facts(base), settings())
    assert {f.rule: f.verdict for f in result.cells[0].findings} == dict.fromkeys(RULES, "pass")


# The cell itself


def test_a_cell_of_the_run_alone_is_new() -> None:
    assert found(None, CELL, "outcome").verdict == "new"
    assert found(not_run("unavailable", "no Core ML here"), CELL, "outcome").verdict == "new"


def test_a_new_cell_is_still_held_against_what_needs_no_baseline() -> None:
    now = cell(file={"float_weights": 2})
    assert judge(_run(now), run_facts(), settings()).verdict == "regressed"
    assert said(None, CELL) == {"outcome", "float_weights", "scales", "latency", "int8_speed"} - {"latency"}


@pytest.mark.parametrize("now", [None, not_run("unavailable", "no Core ML here"), not_run("failed")])
def test_a_cell_without_answers_is_missing_with_its_reason(now: CellFacts | None) -> None:
    finding = found(CELL, now, "outcome")
    assert finding.verdict == "missing"
    assert (now.outcome.reason if now else "not there") in finding.sentence


def test_a_cell_that_neither_side_could_run_is_not_measured() -> None:
    gone = not_run("unavailable", "no Core ML runtime on linux")
    finding = found(gone, gone, "outcome")
    assert finding.verdict is None
    assert "no Core ML runtime on linux" in finding.sentence


# The drop


def test_a_loss_within_the_budget_is_a_pass() -> None:
    finding = found(CELL, cell(scored=scored(lost=12)), "drop", drop={"max_pp": 2.0})
    assert finding.verdict == "pass"
    assert "a loss" in finding.sentence  # 12 : 0 is no chance, and it is told


def test_an_interval_wider_than_the_budget_is_inconclusive_and_says_how_many_images_would_do() -> None:
    finding = found(CELL, cell(scored=scored(lost=22, gained=20)), "drop")
    assert finding.verdict == "inconclusive"
    assert finding.high is not None
    assert finding.high > 0.5
    assert "about" in finding.next_step


def test_a_drop_over_the_budget_that_may_be_chance_is_inconclusive() -> None:
    finding = found(cell(scored=scored(n=100)), cell(scored=scored(lost=2, gained=1, n=100)), "drop")
    assert finding.verdict == "inconclusive"
    assert finding.now == 1.0
    assert "no number of images" in finding.next_step


def test_a_drop_carries_n_interval_budget_and_the_smallest_detectable_drop() -> None:
    finding = found(CELL, cell(scored=scored(lost=40)), "drop", agreement={"enabled": False})
    assert (finding.now, finding.budget, finding.n, finding.unit) == (2.0, 0.5, N, "pp")
    assert finding.confidence == pytest.approx(0.95)  # one test: the whole 2.5% on each side
    assert finding.low is not None
    assert finding.high is not None
    assert finding.low < 2.0 < finding.high
    assert finding.detectable is not None
    assert 0 < finding.detectable < 1


def test_a_gain_passes() -> None:
    assert found(CELL, cell(scored=scored(gained=60)), "drop").verdict == "pass"


@pytest.mark.parametrize("rule", ["drop", "agreement", "range"])
def test_answers_to_other_images_are_refused(rule: str) -> None:
    base = cell(scored=scored(events=NO_EVENTS))
    now = cell(scored=scored(images="cd" * 32, events=NO_EVENTS))
    finding = found(base, now, rule)
    assert finding.verdict == "refused"
    assert "other images" in finding.sentence


def test_other_classes_are_refused_and_files_are_still_judged() -> None:
    result = judge(run_facts(cell(file={"partitions": 5}), num_classes=20), run_facts(CELL), settings())
    verdicts = {f.rule: f.verdict for f in result.cells[0].findings}
    assert verdicts["drop"] == verdicts["agreement"] == "refused"
    assert verdicts["partitions"] == "regressed"


def test_other_weights_tools_and_machines_are_told_and_not_refused() -> None:
    now = run_facts(CELL)
    base = replace(now, weights=replace(now.weights, sha256="01" * 32), versions={"torch": "2.12.0"})
    result = judge(now, base, settings())
    assert result.verdict == "pass"
    assert any("other float weights: demo (efefefefefef)" in note for note in result.notes)
    assert "version: torch 2.13.0, in the baseline 2.12.0" in result.notes


# Agreement


@pytest.mark.parametrize(("disagree", "verdict"), [(0, "pass"), (25, "inconclusive"), (100, "regressed")])
def test_the_wilson_interval_decides_about_a_floor(disagree: int, verdict: Verdict) -> None:
    """20 of 2000 disagree already: 99.0%, 97.75% and 94.0% against 98%."""
    finding = found(CELL, cell(scored=scored(disagree=disagree)), "agreement", agreement={"min_percent": 98.0})
    assert finding.verdict == verdict
    assert finding.low is not None
    assert finding.high is not None
    assert finding.low < 98 - disagree / 20 + 1 < finding.high


def test_a_floor_needs_no_baseline() -> None:
    assert found(None, cell(scored=scored(disagree=100)), "agreement", agreement={"min_percent": 98.0}).now == 94.0


def test_a_loss_of_agreement_within_its_budget_or_by_chance_is_a_pass() -> None:
    assert found(CELL, cell(scored=scored(disagree=12)), "agreement", agreement={"max_drop_pp": 2.0}).verdict == "pass"
    assert found(CELL, cell(scored=scored(disagree=2)), "agreement").verdict == "pass"


def test_agreement_with_another_stage_is_refused() -> None:
    base = cell(scored=replace(scored(), reference="float"))
    assert found(base, CELL, "agreement").verdict == "refused"


# Ranges


def test_only_a_kind_that_the_baseline_had_none_of_is_a_fault() -> None:
    base = cell(scored=scored(events={"nan": 0, "overflowed": 7}))
    assert found(base, cell(scored=scored(events={"nan": 0, "overflowed": 900})), "range").verdict == "pass"
    assert found(base, cell(scored=scored(events={"nan": 1, "overflowed": 0})), "range").verdict == "regressed"


def test_a_runtime_that_does_not_tell_ranges_is_not_judged() -> None:
    assert "range" not in said(CELL, CELL)


# Files


@pytest.mark.parametrize("rule", ["undelegated", "partitions"])
def test_a_budget_of_its_own_replaces_the_baseline(rule: str) -> None:
    more = cell(file={rule: 5})
    assert found(CELL, more, rule, **{rule: {"max": 5}}).verdict == "pass"
    assert found(more, more, rule, **{rule: {"max": 4}}).verdict == "regressed"


def test_formats_that_do_not_tell_what_is_delegated_are_not_judged() -> None:
    silent = cell(file={"undelegated": None, "partitions": None})
    assert said(silent, silent) & {"undelegated", "partitions"} == set()


def test_float_weights_are_a_fault_of_int8_files_only() -> None:
    key = replace(KEY, precision="fp32", source="float")
    float_file = cell(key=key, file={"float_weights": 59})
    assert "float_weights" not in said(float_file, float_file)
    assert found(CELL, cell(file={"float_weights": 2}), "float_weights", float_weights={"max": 2}).verdict == "pass"


def test_scales_that_the_baseline_lacks_too_are_no_fault() -> None:
    three = {"scales_found": 252, "scales_missing": ("a", "b", "c")}
    assert found(cell(file=three), cell(file=three), "scales").verdict == "pass"
    assert found(None, cell(file=three), "scales").verdict == "regressed"
    assert found(CELL, cell(file=three), "scales", scales={"max_more_lost": 3}).verdict == "pass"
    assert "a, b, c" in found(CELL, cell(file=three), "scales").sentence


def test_size_is_a_ratio_to_the_baseline() -> None:
    at_the_budget = round(FILE.size_bytes * 1.02)
    assert found(CELL, cell(file={"size_bytes": at_the_budget}), "size").verdict == "pass"
    assert found(CELL, cell(file={"size_bytes": at_the_budget + 1}), "size").verdict == "regressed"
    assert found(CELL, cell(file={"size_bytes": 1000}), "size").verdict == "pass"


def test_memory_is_a_ratio_to_the_baseline_and_what_was_not_measured_is_told() -> None:
    assert found(CELL, cell(peak_bytes=22_000_000), "memory").verdict == "pass"
    assert found(CELL, cell(peak_bytes=22_100_000), "memory", memory={"max_ratio": 1.2}).verdict == "pass"
    for base, now, says in (
        (CELL, cell(peak_bytes=None), "not measured in this run"),
        (cell(peak_bytes=None), CELL, "no peak memory in the baseline"),
    ):
        finding = found(base, now, "memory")
        assert finding.verdict is None
        assert says in finding.sentence
        assert finding.next_step
    simulated = cell(key=replace(KEY, device=SIMULATED), peak_bytes=None)
    assert "memory" not in said(simulated, simulated)


# Latency


def test_a_device_that_throttled_is_inconclusive() -> None:
    throttled = cell(timing=timing(throttled=True))
    for base, now in ((throttled, CELL), (CELL, throttled)):
        assert found(base, now, "latency").verdict == "inconclusive"
    finding = found(CELL, throttled, "int8_speed")
    assert finding.verdict == "inconclusive"
    assert "became slower while it was timed" in finding.sentence


def test_instructions_within_the_budget_and_of_other_emulators() -> None:
    assert found(CELL, cell(instructions=Instructions(1_050_000, "made up")), "instructions").verdict == "pass"
    assert found(CELL, cell(instructions=Instructions(500_000, "made up")), "instructions").verdict == "pass"
    assert found(CELL, cell(instructions=Instructions(1_000_000, "another")), "instructions").verdict == "refused"
    for base, now in ((cell(instructions=None), CELL), (CELL, cell(instructions=None))):
        assert "instructions" not in said(base, now)  # where nothing was counted there is nothing to judge
    with pytest.raises(ValueError, match="0 instructions"):
        Instructions(0, "made up")


def test_noise_over_the_budget_is_inconclusive() -> None:
    noisy = cell(timing=timing(noise=0.2, seed=1))
    finding = found(CELL, noisy, "latency")
    assert finding.verdict == "inconclusive"
    assert "noise is too high" in finding.sentence


def test_a_slowdown_within_the_budget_is_a_pass() -> None:
    finding = found(CELL, cell(timing=timing(3.15, seed=1)), "latency")
    assert finding.verdict == "pass"
    assert finding.low is not None
    assert finding.low > 1  # it is slower, and allowed to be


@pytest.mark.parametrize("side", ["now", "base"])
@pytest.mark.parametrize("absent", [None, timing(to_control=None)])
def test_no_latency_is_told_and_no_verdict(side: str, absent: Any) -> None:
    without = cell(timing=absent)
    finding = found(*((CELL, without) if side == "now" else (without, CELL)), "latency")
    assert finding.verdict is None
    assert "benchmark" in finding.next_step


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threads": 2}, "2 threads, in the baseline with 1"),
        ({"clock": "wall"}, "the clock on the wall, in the baseline by processor time"),
        ({"host": {**HOST, "processor": "another"}}, "processor 'another', in the baseline 'made up'"),
        ({"host": {**HOST, "vector_extensions": "avx2 avx512f"}}, "vector extensions 'avx2 avx512f'"),
    ],
)
def test_times_of_other_conditions_are_refused(changes: dict[str, Any], says: str) -> None:
    finding = found(CELL, cell(timing=timing(**changes)), "latency")
    assert finding.verdict == "refused"
    assert says in finding.sentence


def test_other_processors_can_be_allowed_and_other_threads_cannot() -> None:
    allowed = {"latency": {"other_processors": True}}
    elsewhere = cell(timing=timing(host={**HOST, "processor": "another"}))
    assert found(CELL, elsewhere, "latency", **allowed).verdict == "pass"
    assert found(CELL, cell(timing=timing(threads=2)), "latency", **allowed).verdict == "refused"


def test_a_single_measurement_decides_nothing() -> None:
    once = cell(timing=timing(processes=1, to_control=(3.0,), to_float=(0.6,)))
    assert found(CELL, once, "latency").verdict == "inconclusive"
    assert found(CELL, once, "int8_speed").verdict == "inconclusive"


def test_int8_that_may_be_as_fast_as_float_is_inconclusive() -> None:
    even = cell(timing=timing(over_float=1.0, noise=0.05, seed=2))
    assert found(CELL, even, "int8_speed").verdict == "inconclusive"
    assert found(CELL, even, "int8_speed", int8_speed={"max_ratio": 1.2}).verdict == "pass"
    assert found(CELL, cell(timing=timing(to_float=None)), "int8_speed").verdict is None


def test_a_simulation_counts_for_its_answers_and_has_no_latency() -> None:
    key = replace(KEY, target="coreml", runtime="mil-fp16", device=SIMULATED)
    base = cell(key=key, timing=None, scored=scored(events=NO_EVENTS))
    now = replace(base, scored=scored(lost=40, events=NO_EVENTS))
    assert said(base, now) & {"latency", "int8_speed"} == set()
    assert found(base, now, "drop").verdict == "regressed"
