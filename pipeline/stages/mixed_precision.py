"""Find the fewest float layers that hold `--max-drop`, confirmed on converted files.

Nothing is trained: layers are taken out of the trained program, which leaves the scales of all others as they are. The
first, all-int8 checkpoint stays beside the new one. Whatever moment the search is cut off at, it goes on from its log.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import ValidationPlan
from pipeline.errors import CellsFailedError
from pipeline.files import sha256_of, write_atomic, write_json
from pipeline.mixed.search import MixedPlan, MixedSearch, TrialLog
from pipeline.mixed.torch_judge import TorchJudge, cell_drop
from pipeline.progress import Say
from pipeline.quantization.graph import save_program
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import ArtifactKey, CellKey, Outcome
from pipeline.records.mixed import QDQ, CellDrop, MixedRecord, Trial
from pipeline.records.validation import ValidationRecord
from pipeline.run import layout as files
from pipeline.run.facts import read_quantization, write_facts
from pipeline.run.folder import MANIFEST_SCHEMA, Run
from pipeline.run.logits import StageLogits, load_artifact_logits, load_logits, save_logits
from pipeline.training.subject import ScoredImages, scored_images
from targets.codec import to_dict

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def mix(run: Run, plan: MixedPlan, say: Say) -> MixedRecord:
    """Find the float layers and write the program that has them, its logits and facts, and mixed.json.

    Raises:
        UsageError: `given` names a layer that there is not.
        BelowBarError: the budget is not held even with all layers float: the loss is not from rounding.
        CellsFailedError: a target cannot convert or run a candidate.
        TrainingError: logits that are not finite.
        RunError: the images are not those of the checkpoint, or its files changed.
    """
    from targets.program import load_program

    keep_int8(run)
    path = run.file(files.INT8[files.QDQ_PROGRAM])
    program, digest = load_program(path), sha256_of(path)
    reference = load_logits(run, files.INT8[files.LOGITS])
    images = scored_images(run, reference)
    torch_judge = TorchJudge(program, reference, images)
    targets_judge = TargetsJudge(run, program, reference, plan.targets, run.path / files.CANDIDATE, plan.threads)
    key = f"{digest[:16]}:{_digest(reference)[:16]}"
    search = MixedSearch(plan, key, torch_judge, targets_judge.trial, TrialLog(run.path / files.TRIALS), say)
    chosen = search.start if plan.budget_pp is None else search.found(plan.budget_pp)
    float_layers = tuple(sorted(chosen))
    logits = write_checkpoint(run, program, images, float_layers)
    if not any(trial.float_layers == float_layers for trial in search.trials):
        search.trials.append(Trial("torch", float_layers, (cell_drop(QDQ, logits, reference),), None))
    record = MixedRecord(
        program_sha256=digest,
        layers=len(torch_judge.layers),
        float_layers=float_layers,
        given=tuple(sorted(search.start)),
        float_parameters=torch_judge.parameters(float_layers),
        parameters=torch_judge.parameters(torch_judge.layers),
        budget_pp=plan.budget_pp,
        ranking_images=min(plan.rank_images, len(reference.labels)) if search.ranking else 0,
        ranking=search.ranking,
        trials=tuple(search.trials),
    )
    write_json(run.path / files.MIXED, to_dict(record))
    shutil.rmtree(run.path / files.CANDIDATE, ignore_errors=True)  # of a trial that was killed
    logged = [files.TRIALS] if (run.path / files.TRIALS).exists() else []
    run.record(files.QDQ_PROGRAM, files.LOGITS, files.QUANTIZATION, files.MIXED, *logged)
    return record


def _digest(reference: StageLogits) -> str:
    """Of which images these are, in which order."""
    return hashlib.sha256(f"{reference.digest}:{reference.indices.tolist()}".encode()).hexdigest()


#: Of Core ML's simulation: what a Neural Engine computes in. The others would double the time of a trial.
ROUNDINGS = ("fp16",)


@dataclass(frozen=True)
class TargetsJudge:
    """Converts the program for every target and scores the files, as `convert` and `validate` do, in a folder aside.

    Attributes:
        folder: emptied before and after.
        threads: of a runtime.
    """

    run: Run
    program: ExportedProgram
    reference: StageLogits
    targets: Sequence[str]
    folder: Path
    threads: int

    def trial(self, float_layers: tuple[str, ...], say: Say) -> Trial:
        """
        Raises:
            CellsFailedError: a target cannot convert or run the program; an unavailable one is only noted.
        """
        from pipeline.stages.convert import convert_cells
        from pipeline.stages.validate import validate_run

        start = time.monotonic()
        try:
            candidate = self._candidate(float_layers)
            say(f"converting {len(float_layers)} float layers for {', '.join(self.targets)}")
            made = convert_cells(candidate, [ArtifactKey(target, "int8", "qat") for target in self.targets], _silent)
            ended: list[Ended] = [(record.artifact, record.outcome) for record in made]
            _raise_if_failed(float_layers, ended)
            here = [record.target for record in made if record.outcome.status == "ok"]
            scored: tuple[ValidationRecord, ...] = ()
            if here:
                plan = ValidationPlan(threads=self.threads, roundings=ROUNDINGS)
                scored = validate_run(candidate, here, plan, _silent)
                ended += [(record.key, record.outcome) for record in scored]
                _raise_if_failed(float_layers, ended)
            cells = self._cells(candidate, made, scored)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return Trial("targets", float_layers, cells, time.monotonic() - start, _unavailable(ended))

    def _candidate(self, float_layers: tuple[str, ...]) -> Run:
        """A run folder with what convert and validate read."""
        from pipeline.quantization.float_layers import leave_float

        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        candidate = Run(self.folder)
        manifest = {"schema": MANIFEST_SCHEMA, "run": self.run.id, "model": self.run.model, "files": {}}
        write_json(self.folder / files.MANIFEST, manifest)
        for name in (files.CONFIG, files.SUBJECT, files.QUANTIZATION):
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(self.run.file(files.INT8.get(name, name)), self.folder / name)
        save_logits(self.reference, self.folder / files.LOGITS)
        save_program(leave_float(self.program, float_layers), self.folder / files.QDQ_PROGRAM)
        candidate.record(files.CONFIG, files.SUBJECT, files.QUANTIZATION, files.LOGITS, files.QDQ_PROGRAM)
        return candidate

    def _cells(
        self, candidate: Run, made: Sequence[ConversionRecord], scored: Sequence[ValidationRecord]
    ) -> tuple[CellDrop, ...]:
        sizes = {record.target: record.facts.size_bytes for record in made if record.facts is not None}
        cells = []
        for record in scored:
            kept = load_artifact_logits(candidate, record.key) if record.outcome.status == "ok" else None
            if kept is not None:
                cells.append(cell_drop(record.key.label, kept.logits, self.reference, sizes[record.key.target]))
        return tuple(cells)


def _silent(line: str) -> None:
    """What convert and validate say of a candidate is about a file that nobody will see."""


#: A file that was converted, or a cell that was validated, and how that ended.
Ended = tuple[ArtifactKey | CellKey, Outcome]


def _raise_if_failed(float_layers: Sequence[str], ended: Sequence[Ended]) -> None:
    for key, outcome in ended:
        if outcome.status == "failed":
            raise CellsFailedError(
                f"{key.label} with {len(float_layers)} layers in float failed at {outcome.stage}: {outcome.reason}; "
                "leave the target out of the search with --drop-target"
            )


def _unavailable(ended: Sequence[Ended]) -> tuple[str, ...]:
    """Targets of which nothing was measured, with the first reason."""
    measured = {key.target for key, outcome in ended if isinstance(key, CellKey) and outcome.status == "ok"}
    first: dict[str, str] = {}
    for key, outcome in ended:
        if outcome.status != "ok" and key.target not in measured:
            first.setdefault(key.target, f"{key.target}: {outcome.reason}")
    return tuple(first.values())


# The files of the checkpoint replace each other one by one, and `mix` lists them in the manifest at once: cut off
# before that, the copy that was kept is what the next attempt starts from.


def keep_int8(run: Run) -> None:
    """Copy the trained checkpoint aside, once; a copy that the manifest does not list yet is made again."""
    if all(run.has(kept) for kept in files.INT8.values()):
        return
    for name, kept in files.INT8.items():
        write_atomic(run.path / kept, run.file(name).read_bytes())
    run.record(*files.INT8.values())


def write_checkpoint(
    run: Run, program: ExportedProgram, images: ScoredImages, float_layers: tuple[str, ...]
) -> np.ndarray:
    """Program, logits and facts with these layers in float, in place of those of the run; not listed yet.

    Args:
        program: with all layers int8.

    Returns:
        The QDQ program's logits [N, classes], of the file that was written.
    """
    from pipeline.quantization.float_layers import leave_float
    from pipeline.quantization.integer import IntegerProgram
    from pipeline.training.setting import collect_logits
    from targets.program import load_program

    kept = load_logits(run, files.INT8[files.LOGITS])
    if not float_layers:
        for name, copy in files.INT8.items():
            write_atomic(run.path / name, run.file(copy).read_bytes())
        return kept.stages["qdq"]
    save_program(leave_float(program, float_layers), run.path / files.QDQ_PROGRAM)
    reloaded = IntegerProgram(load_program(run.path / files.QDQ_PROGRAM).module())
    logits = collect_logits("scoring the mixed program", reloaded, images)
    stages = {**kept.stages, "qdq": logits}
    save_logits(StageLogits(kept.labels, kept.indices, kept.digest, stages), run.path / files.LOGITS)
    facts = read_quantization(run, files.INT8[files.QUANTIZATION])
    scheme = {**facts.scheme, "float_layers": sorted({*facts.float_layers, *float_layers})}
    write_facts(run, files.QUANTIZATION, replace(facts, scheme=scheme))
    return logits
