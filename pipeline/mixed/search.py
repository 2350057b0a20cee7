"""Search the fewest float layers that hold a budget; every trial is logged, so that a killed search goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import ValidationPlan
from pipeline.errors import BelowBarError, RunError
from pipeline.files import write_atomic
from pipeline.mixed.torch_judge import TorchJudge
from pipeline.progress import Say
from pipeline.records.mixed import RankedLayer, Trial
from targets.codec import RecordError, from_dict, to_dict


@dataclass(frozen=True)
class MixedPlan:
    """What was asked for.

    Attributes:
        given: layers that are float in any case.
        budget_pp: largest drop in top-1 against the float model, in percentage points; None: no search.
        targets: that hold it.
        rank_images: that layers are ranked on.
        threads: of a runtime.
    """

    given: tuple[str, ...]
    budget_pp: float | None
    targets: tuple[str, ...]
    rank_images: int
    threads: int = ValidationPlan.threads


@dataclass
class MixedSearch:
    """First in torch, which takes seconds or minutes a trial; what holds there is then confirmed on the targets.

    Attributes:
        key: of the log: which program, which images.
        confirm: scores a set of float layers where it counts: on the converted files.
        trials, ranking: made so far, or read from the log.
        start: layers that are float in any case.
    """

    plan: MixedPlan
    key: str
    torch: TorchJudge
    confirm: Callable[[tuple[str, ...], Say], Trial]
    log: TrialLog
    say: Say
    trials: list[Trial] = field(default_factory=list)
    ranking: tuple[RankedLayer, ...] = ()

    def __post_init__(self) -> None:
        self.start: Names = frozenset(self.torch.named(self.plan.given))

    def found(self, budget_pp: float) -> Names:
        """
        Raises:
            BelowBarError: all layers float are not enough.
        """
        n, chosen = self.torch.n, self.start
        self.say(
            f"searching the fewest float layers that keep the QDQ program and {', '.join(self.plan.targets)} within "
            f"{budget_pp:g} points of the float model: {int(budget_pp * n / 100 + 1e-9)} of {n} images"
        )
        if not self._in_torch(chosen, budget_pp):
            if not self._in_torch(frozenset(self.torch.layers), budget_pp):
                raise BelowBarError(
                    self._over(budget_pp, "the loss is not from rounding these layers: train otherwise")
                )
            chosen = self._more(chosen, budget_pp, self._in_torch)
        if not self._on_targets(chosen, budget_pp):
            chosen = self._more(chosen, budget_pp, lambda *taken: self._in_torch(*taken) and self._on_targets(*taken))
        self.say(f"{len(chosen)} of {len(self.torch.layers)} layers in float hold the budget")
        return chosen

    def _more(self, chosen: Names, budget_pp: float, within: Callable[[Names, float], bool]) -> Names:
        """At least one layer stays int8: a program without any is the float model, and no int8 file.

        Raises:
            BelowBarError: that is not enough.
        """
        found = fewest(chosen, self._order()[:-1], lambda names: within(names, budget_pp))
        if found is None:
            raise BelowBarError(self._over(budget_pp, "`convert --precision fp16` makes files of the float model"))
        return found

    def _in_torch(self, names: Names, budget_pp: float) -> bool:
        return self._trial(self.key, names, self.torch.trial).within(budget_pp)

    def _on_targets(self, names: Names, budget_pp: float) -> bool:
        key = f"{self.key}:{','.join(self.plan.targets)}"
        return self._trial(key, names, lambda layers: self.confirm(layers, self.say)).within(budget_pp)

    def _trial(self, key: str, names: Names, make: Callable[[tuple[str, ...]], Trial]) -> Trial:
        layers = tuple(sorted(names))
        found = self.log.trial(key, layers)
        if found is None:
            found = make(layers)
            self.log.add(key, found)
        if found not in self.trials:
            self.trials.append(found)
            self.say(_line(found))
        self._last = found
        return found

    def _order(self) -> list[str]:
        key = f"{self.key}:{self.plan.rank_images}"
        ranking = self.log.ranking(key)
        if ranking is None:
            ranking = self.torch.ranking(self.plan.rank_images)
            self.log.add(key, ranking)
        self.ranking = ranking
        return [layer.name for layer in ranking]

    def _over(self, budget_pp: float, hint: str) -> str:
        cell = self._last.worst
        assert cell is not None  # it is over the budget
        return (
            f"with {len(self._last.float_layers)} of {len(self.torch.layers)} layers in float {cell.name} is still "
            f"{cell.drop_pp:.2f} points below the float model (budget {budget_pp:g}, n {cell.n}): {hint}, or allow "
            "more with --max-drop; the run keeps its checkpoint with all layers int8"
        )


def _line(trial: Trial) -> str:
    worst = trial.worst
    where = "" if worst is None or trial.judge == "torch" else f", worst in {worst.name}"
    drop = "not measured: no target runs here" if worst is None else f"drop {worst.drop_pp:.2f} points (n {worst.n})"
    return f"{len(trial.float_layers)} float layers, {trial.judge}: {drop}{where}"


@dataclass(frozen=True)
class _Entry:
    """One line of the log: a trial or a ranking."""

    key: str
    trial: Trial | None = None
    ranking: tuple[RankedLayer, ...] | None = None

    def __post_init__(self) -> None:
        if (self.trial is None) == (self.ranking is None):
            raise ValueError("neither a trial nor a ranking, or both")


class TrialLog:
    """
    Raises:
        RunError: a line that is no trial.
    """

    def __init__(self, path: Path):
        self.path = path
        self._entries: list[_Entry] = []
        for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), start=1):
            try:
                self._entries.append(from_dict(_Entry, json.loads(line), f"{path.name} line {number}"))
            except (ValueError, RecordError) as error:
                raise RunError(
                    f"{path} line {number} is no trial of this version ({error}): remove the file, and the search "
                    "begins anew"
                ) from error

    def trial(self, key: str, float_layers: tuple[str, ...]) -> Trial | None:
        """None if it was not made yet."""
        trials = (entry.trial for entry in self._entries if entry.key == key and entry.trial is not None)
        return next((trial for trial in trials if trial.float_layers == float_layers), None)

    def ranking(self, key: str) -> tuple[RankedLayer, ...] | None:
        return next((entry.ranking for entry in self._entries if entry.key == key and entry.ranking is not None), None)

    def add(self, key: str, what: Trial | tuple[RankedLayer, ...]) -> None:
        """On disk when this returns."""
        self._entries.append(_Entry(key, trial=what) if isinstance(what, Trial) else _Entry(key, ranking=what))
        given = ({k: v for k, v in to_dict(entry).items() if v is not None} for entry in self._entries)
        write_atomic(self.path, "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in given))


Names = frozenset[str]


def fewest(start: Names, order: Sequence[str], passes: Callable[[Names], bool]) -> Names | None:
    """The shortest beginning of `order` that passes together with `start`, less every name that can be given back.

    If more names never hurt, no name of `order` in the result can be given back alone. (The least of all sets would
    take a judgement of each of 2^n.) Where more names do hurt now and then, the result still passed.

    Args:
        order: the most useful first; names of `start` are passed over.
        passes: asked for about 2 log2(k) + k sets, k names being found; never twice for the same set.

    Returns:
        None if `start` with all of `order` does not pass.
    """
    rest = [name for name in order if name not in start]
    verdicts: dict[Names, bool] = {}

    def ok(names: Names) -> bool:
        if names not in verdicts:
            verdicts[names] = passes(names)
        return verdicts[names]

    def first(count: int) -> Names:
        return start | frozenset(rest[:count])

    low, high = -1, 0  # the longest beginning known to fail, the shortest known to pass
    while not ok(first(high)):
        if high == len(rest):
            return None
        low, high = high, min(len(rest), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ok(first(middle)) else (middle, high)
    found = first(high)
    for name in reversed(rest[: max(0, high - 1)]):  # without the last one it failed just now
        if ok(found - {name}):
            found -= {name}
    return found
