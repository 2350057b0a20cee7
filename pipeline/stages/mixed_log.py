"""Trials of a mixed-precision search in, one JSON line each on disk out, and back after the search was cut off.

A line says what it is a trial of (its key: program, images, targets), so that a trial is never taken for one of another
program, of other images or other targets. The file is replaced as a whole: after a kill it holds whole lines only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import RunError
from pipeline.reports.codec import from_dict, to_dict
from pipeline.reports.mixed_record import RankedLayer, Trial
from pipeline.rundir import write_atomic

TRIALS = "search/trials.jsonl"


class TrialLog:
    """
    Raises:
        RunError: a line that is no trial.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lines: list[str] = []
        self._trials: dict[tuple[str, tuple[str, ...]], Trial] = {}
        self._rankings: dict[str, tuple[RankedLayer, ...]] = {}
        for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), start=1):
            try:
                self._keep(json.loads(line), f"{path.name} line {number}")
            except (ValueError, KeyError, TypeError, RunError) as error:
                raise RunError(
                    f"{path} line {number} is no trial of this version ({error}): remove the file, and the search "
                    "begins anew"
                ) from error
            self._lines.append(line.decode())

    def trial(self, key: str, float_layers: tuple[str, ...]) -> Trial | None:
        """None if it was not made yet."""
        return self._trials.get((key, float_layers))

    def ranking(self, key: str) -> tuple[RankedLayer, ...] | None:
        return self._rankings.get(key)

    def add(self, key: str, what: Trial | tuple[RankedLayer, ...]) -> None:
        """On disk when this returns."""
        entry: dict[str, Any] = {"key": key}
        entry |= {"trial": to_dict(what)} if isinstance(what, Trial) else {"ranking": [to_dict(r) for r in what]}
        self._keep(entry, "a new line")
        self._lines.append(json.dumps(entry, allow_nan=False))
        write_atomic(self.path, "".join(line + "\n" for line in self._lines))

    def _keep(self, entry: dict[str, Any], where: str) -> None:
        key = str(entry["key"])
        if "trial" in entry:
            trial = from_dict(Trial, entry["trial"], where)
            self._trials[key, trial.float_layers] = trial
        else:
            self._rankings[key] = tuple(from_dict(RankedLayer, layer, where) for layer in entry["ranking"])
