"""The search for float layers on a network that one outlier channel ruins: real int8, real roundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from outlier_run import IMAGES, LAYERS, NEEDED, outlier_run

from pipeline.errors import BelowBarError, RunError, UsageError
from pipeline.mixed.search import MixedPlan, MixedSearch, TrialLog
from pipeline.mixed.torch_judge import TorchJudge
from pipeline.records.mixed import QDQ, CellDrop, RankedLayer, Trial
from pipeline.run import layout as files
from pipeline.run.folder import Run
from pipeline.run.logits import load_logits
from pipeline.training.subject import scored_images
from targets.program import load_program

BUDGET = 15.0  # of 72 images: the two layers leave 5 wrong, any smaller set 64
Layers = tuple[str, ...]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return outlier_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def judge(run: Run) -> TorchJudge:
    return judge_of(run)


def judge_of(run: Run, lost: int = 0) -> TorchJudge:
    """
    Args:
        lost: so many of the float model's answers are taken to be better than they are.
    """
    reference = load_logits(run)
    if lost:
        # The program no longer has a chance on these images, with or without rounding.
        reference.labels[:lost] = (reference.labels[:lost] + 1) % 10
        reference.stages["float"][range(lost), reference.labels[:lost]] = 1e6
    return TorchJudge(load_program(run.file(files.QDQ_PROGRAM)), reference, scored_images(run, reference))


@dataclass
class Targets:
    """Stands in for converters: what a target would lose, by a rule; what it was asked."""

    lost: Callable[[Layers], int] = lambda layers: 0
    asked: list[Layers] = field(default_factory=list)

    def trial(self, layers: Layers, say: Callable[[str], None]) -> Trial:
        self.asked.append(layers)
        cells = (CellDrop("a", IMAGES, 0, 0, 1000), CellDrop("b", IMAGES, self.lost(layers), 0, 2000))
        return Trial("targets", layers, cells, 1.0)


def search(judge: object, targets: Targets, log: Path, *given: str, key: str = "key") -> MixedSearch:
    plan = MixedPlan(given, BUDGET, ("a", "b"), rank_images=16)
    return MixedSearch(plan, key, judge, targets.trial, TrialLog(log), lambda line: None)  # type: ignore[arg-type]


def test_the_two_layers_around_the_outlier_are_found_and_no_other(judge: TorchJudge, tmp_path: Path) -> None:
    targets = Targets()
    found = search(judge, targets, tmp_path / "log")
    assert found.found(BUDGET) == set(NEEDED)
    assert targets.asked == [NEEDED]  # only what held in torch was converted
    drops = {trial.float_layers: trial.cells[0].drop_pp for trial in found.trials if trial.judge == "torch"}
    assert drops[()] > 50
    assert all(drops[alone] > 50 for alone in ((NEEDED[0],), (NEEDED[1],)) if alone in drops)
    assert drops[NEEDED] <= BUDGET


def test_an_int8_program_within_the_budget_is_left_as_it_is(tmp_path: Path) -> None:
    judge = judge_of(outlier_run(tmp_path / "runs", outlier=1.0))
    targets = Targets()
    found = search(judge, targets, tmp_path / "log")
    assert found.found(BUDGET) == set()
    assert targets.asked == [()]
    assert found.ranking == ()  # nothing was computed for it
    assert [trial.seconds for trial in found.trials if trial.judge == "torch"] == [None]  # scored before


def test_a_target_that_needs_more_gets_more(judge: TorchJudge, tmp_path: Path) -> None:
    targets = Targets(lambda layers: 0 if "first" in layers else IMAGES)
    found = search(judge, targets, tmp_path / "log")
    assert found.found(BUDGET) == {*NEEDED, "first"}
    assert targets.asked[0] == NEEDED


def test_the_worst_target_decides(judge: TorchJudge, tmp_path: Path) -> None:
    just, over = int(BUDGET * IMAGES / 100), int(BUDGET * IMAGES / 100) + 1
    assert search(judge, Targets(lambda layers: just), tmp_path / "1").found(BUDGET) == set(NEEDED)
    with pytest.raises(BelowBarError, match=rf"b is still .* points below the float model \(budget 15, n {IMAGES}\)"):
        search(judge, Targets(lambda layers: over), tmp_path / "2").found(BUDGET)


def test_layers_named_beforehand_stay_float_and_the_rest_is_searched(judge: TorchJudge, tmp_path: Path) -> None:
    found = search(judge, Targets(), tmp_path / "log", "head")
    assert found.found(BUDGET) == {*NEEDED, "head"}
    with pytest.raises(UsageError, match=r"'haed' is no Linear or convolution.*Did you mean 'head'"):
        search(judge, Targets(), tmp_path / "log", "haed")


def test_a_loss_that_is_not_from_rounding_is_told_apart(run: Run, tmp_path: Path) -> None:
    targets = Targets()
    with pytest.raises(BelowBarError, match=r"with 4 of 4 layers in float QDQ program is still .*not from rounding"):
        search(judge_of(run, lost=20), targets, tmp_path / "log").found(BUDGET)
    assert targets.asked == []


def test_at_least_one_layer_stays_int8(judge: TorchJudge, tmp_path: Path) -> None:
    targets = Targets(lambda layers: 0 if len(layers) == len(LAYERS) else IMAGES)
    with pytest.raises(BelowBarError, match="convert --precision fp16"):
        search(judge, targets, tmp_path / "log").found(BUDGET)
    assert max(map(len, targets.asked)) == len(LAYERS) - 1


def test_the_ranking_is_by_kl_divergence_and_finds_what_one_layer_buys(judge: TorchJudge) -> None:
    ranking = judge.ranking(16)
    assert {layer.name for layer in ranking} == set(LAYERS)
    assert [layer.kl_mean for layer in ranking] == sorted(layer.kl_mean for layer in ranking)


class KilledError(Exception):
    """Where a process would be gone."""


@dataclass
class Mortal:
    """A judge whose process is killed while it works on its n-th trial."""

    judge: TorchJudge | Targets
    lives: int
    made: list[Layers] = field(default_factory=list)

    def trial(self, layers: Layers, *say: Callable[[str], None]) -> Trial:
        if len(self.made) == self.lives:
            raise KilledError
        self.made.append(layers)
        return self.judge.trial(layers, *say)  # type: ignore[call-arg, arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self.judge, name)


@pytest.mark.parametrize("lives", range(5))
def test_a_killed_search_goes_on_where_it_stood(judge: TorchJudge, tmp_path: Path, lives: int) -> None:
    straight = search(judge, Targets(), tmp_path / "straight")
    expected = straight.found(BUDGET)
    log, first, second = tmp_path / "cut", Mortal(judge, lives), Mortal(judge, 99)
    with pytest.raises(KilledError):
        search(first, Targets(), log).found(BUDGET)
    resumed = search(second, Targets(), log)
    assert resumed.found(BUDGET) == expected
    assert [t.float_layers for t in resumed.trials] == [t.float_layers for t in straight.trials]
    assert [t.cells for t in resumed.trials] == [t.cells for t in straight.trials]
    assert not set(first.made) & set(second.made)  # none was made twice
    assert len(first.made) == lives


def test_a_search_that_is_repeated_makes_no_trial(judge: TorchJudge, tmp_path: Path) -> None:
    first = search(judge, Targets(), tmp_path / "log")
    assert first.found(BUDGET) == set(NEEDED)
    dead = Mortal(judge, 0)
    second = search(dead, Mortal(Targets(), 0), tmp_path / "log")
    assert second.found(BUDGET) == set(NEEDED)
    assert second.trials == first.trials
    assert second.ranking == first.ranking


def test_trials_of_another_program_are_not_taken(judge: TorchJudge, tmp_path: Path) -> None:
    search(judge, Targets(), tmp_path / "log").found(BUDGET)
    with pytest.raises(KilledError):
        search(Mortal(judge, 0), Targets(), tmp_path / "log", key="other").found(BUDGET)


def test_the_log_holds_one_line_a_trial_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "search" / "trials.jsonl"
    trial = Trial("torch", ("a", "b"), (CellDrop(QDQ, 10, 2, 1),), 0.5)
    ranking = (RankedLayer("a", 0.25), RankedLayer("b", 0.5))
    log = TrialLog(path)
    assert log.trial("k", ("a", "b")) is None
    log.add("k", trial)
    log.add("k", ranking)
    assert len(path.read_text().splitlines()) == 2
    again = TrialLog(path)
    assert again.trial("k", ("a", "b")) == trial
    assert again.trial("k", ("a",)) is None
    assert again.trial("other", ("a", "b")) is None
    assert again.ranking("k") == ranking
    assert again.ranking("other") is None


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "k"}', '{"key": "k", "trial": {"judge": "torch"}}', "\udcff"])
def test_a_damaged_log_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(line.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=r"line 1 is no trial .* remove the file"):
        TrialLog(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"float_layers": ("b", "a")},
        {"float_layers": ("a", "a")},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"cells": ()},
        {"cells": (CellDrop("tflite", 10, 0, 0),)},
    ],
)
def test_impossible_trials_are_refused(wrong: dict[str, object]) -> None:
    right = {"judge": "torch", "float_layers": ("a",), "cells": (CellDrop(QDQ, 10, 0, 0),), "seconds": 1.0}
    Trial(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"."):
        Trial(**{**right, **wrong})  # type: ignore[arg-type]


def test_nothing_measured_is_within_the_budget_and_has_no_worst() -> None:
    nothing = Trial("targets", (), (), 1.0, ("coreml: not here",))
    assert nothing.worst is None
    assert nothing.within(0)
