"""A trained QDQ program and names of float layers in, images that converted files of it lose against float out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import CellsFailedError
from pipeline.qat import checkpoint as files
from pipeline.qat.checkpoint import StageLogits
from pipeline.reports.mixed_record import CellDrop, Trial
from pipeline.reports.records import ConversionRecord, ValidationRecord
from pipeline.rundir import MANIFEST, MANIFEST_SCHEMA, Run, write_json
from pipeline.stages.artifact_logits import load_artifact_logits
from pipeline.stages.mixed_torch import cell_drop

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Say = Callable[[str], None]
#: Of Core ML's simulation: what a Neural Engine computes in. The others would double the time of a trial.
ROUNDINGS = ("fp16",)


class TargetsJudge:
    """Converts the program for every target and scores the files, as `convert` and `validate` do, in a folder aside.

    Args:
        folder: emptied before and after.
        threads: of a runtime.
    """

    def __init__(
        self,
        run: Run,
        program: ExportedProgram,
        reference: StageLogits,
        targets: Sequence[str],
        folder: Path,
        threads: int,
    ):
        self._run, self._program, self._reference = run, program, reference
        self._targets, self._folder, self._threads = targets, folder, threads

    def trial(self, float_layers: tuple[str, ...], say: Say) -> Trial:
        """
        Raises:
            CellsFailedError: a target cannot convert or run the program; an unavailable one is only noted.
        """
        from pipeline.stages.convert import Cell, convert_cells
        from pipeline.stages.validate import validate_run

        start = time.monotonic()
        try:
            candidate = self._candidate(float_layers)
            say(f"converting {len(float_layers)} float layers for {', '.join(self._targets)}")
            made = convert_cells(candidate, [Cell(target, "int8", "qat") for target in self._targets], _silent)
            _raise_if_failed(float_layers, made)
            here = [record.target for record in made if record.outcome.status == "ok"]
            scored: tuple[ValidationRecord, ...] = ()
            if here:
                scored = validate_run(candidate, here, None, self._threads, _silent, roundings=ROUNDINGS)
                _raise_if_failed(float_layers, scored)
            cells = self._cells(candidate, made, scored)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return Trial("targets", float_layers, cells, time.monotonic() - start, _unavailable(made, scored))

    def _candidate(self, float_layers: tuple[str, ...]) -> Run:
        """A run folder with what convert and validate read."""
        from pipeline.qat.mixed_program import leave_float

        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        candidate = Run(self._folder)
        manifest = {"schema": MANIFEST_SCHEMA, "run": self._run.id, "model": self._run.model, "files": {}}
        write_json(self._folder / MANIFEST, manifest)
        for name in (files.CONFIG, files.SUBJECT):
            (self._folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(self._run.file(name), self._folder / name)
        files.save_logits(self._reference, self._folder / files.LOGITS)
        files.save_program(leave_float(self._program, float_layers), self._folder / files.QDQ_PROGRAM)
        candidate.record(files.CONFIG, files.SUBJECT, files.LOGITS, files.QDQ_PROGRAM)
        return candidate

    def _cells(
        self, candidate: Run, made: Sequence[ConversionRecord], scored: Sequence[ValidationRecord]
    ) -> tuple[CellDrop, ...]:
        sizes = {record.target: record.facts.size_bytes for record in made if record.facts is not None}
        cells = []
        for record in scored:
            kept = load_artifact_logits(candidate, record.key) if record.outcome.status == "ok" else None
            if kept is not None:
                cells.append(cell_drop(record.key.label, kept.logits, self._reference, sizes[record.key.target]))
        return tuple(cells)


def _silent(line: str) -> None:
    """What convert and validate say of a candidate is about a file that nobody will see."""


def _raise_if_failed(
    float_layers: Sequence[str], records: Sequence[ConversionRecord] | Sequence[ValidationRecord]
) -> None:
    for record in records:
        if record.outcome.status == "failed":
            name = record.key.label if isinstance(record, ValidationRecord) else f"{record.target} {record.precision}"
            raise CellsFailedError(
                f"{name} with {len(float_layers)} layers in float failed at {record.outcome.stage}: "
                f"{record.outcome.reason}; leave the target out of the search with --drop-target"
            )


def _unavailable(made: Sequence[ConversionRecord], scored: Sequence[ValidationRecord]) -> tuple[str, ...]:
    """Targets of which nothing was measured, with the first reason."""
    measured = {record.key.target for record in scored if record.outcome.status == "ok"}
    reasons = [(record.target, record.outcome.reason) for record in made if record.outcome.status != "ok"]
    reasons += [(record.key.target, record.outcome.reason) for record in scored if record.outcome.status != "ok"]
    first: dict[str, str] = {}
    for target, reason in reasons:
        if target not in measured:
            first.setdefault(target, f"{target}: {reason}")
    return tuple(first.values())
