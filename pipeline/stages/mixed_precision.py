"""A quantized run and a budget in; the same run with the fewest float layers that keep every target within it out.

Nothing is trained: layers are taken out of the trained program, which leaves the scales of all others as they are. The
first, all-int8 checkpoint stays beside the new one. Whatever moment the search is cut off at, it goes on from its log.
"""

from __future__ import annotations

import hashlib
import shutil

from pipeline.qat import checkpoint as files
from pipeline.qat.stage_logits import StageLogits, load_logits
from pipeline.reports.codec import to_dict
from pipeline.reports.mixed_record import QDQ, MixedRecord, Trial
from pipeline.rundir import Run, sha256_of, write_json
from pipeline.stages.mixed_checkpoint import INT8, keep_int8, write_checkpoint
from pipeline.stages.mixed_log import TRIALS, TrialLog
from pipeline.stages.mixed_record_file import MIXED
from pipeline.stages.mixed_search import MixedPlan, MixedSearch
from pipeline.stages.mixed_targets import Say, TargetsJudge
from pipeline.stages.mixed_torch import TorchJudge, cell_drop
from pipeline.stages.scored_images import scored_images

CANDIDATE = "search/candidate"


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
    path = run.file(INT8[files.QDQ_PROGRAM])
    program, digest = load_program(path), sha256_of(path)
    reference = load_logits(run, INT8[files.LOGITS])
    images = scored_images(run, reference)
    torch_judge = TorchJudge(program, reference, images)
    targets_judge = TargetsJudge(run, program, reference, plan.targets, run.path / CANDIDATE, plan.threads)
    key = f"{digest[:16]}:{_digest(reference)[:16]}"
    search = MixedSearch(plan, key, torch_judge, targets_judge, TrialLog(run.path / TRIALS), say)
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
    write_json(run.path / MIXED, to_dict(record))
    shutil.rmtree(run.path / CANDIDATE, ignore_errors=True)  # of a trial that was killed
    logged = [TRIALS] if (run.path / TRIALS).exists() else []
    run.record(files.QDQ_PROGRAM, files.LOGITS, files.QUANTIZATION, MIXED, *logged)
    return record


def _digest(reference: StageLogits) -> str:
    """Of which images these are, in which order."""
    return hashlib.sha256(f"{reference.digest}:{reference.indices.tolist()}".encode()).hexdigest()
