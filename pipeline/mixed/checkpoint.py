"""A trained QDQ program and names of float layers in; the run's checkpoint with them out, the first one kept beside it.

The files replace each other one by one, and the caller lists them in the manifest at once: cut off before that, the
copy that was kept is what the next attempt starts from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.files import write_atomic, write_json
from pipeline.quantization.graph import save_program
from pipeline.run import checkpoint as files
from pipeline.run.checkpoint import StageLogits, load_logits
from pipeline.run.folder import Run
from pipeline.training.scored_images import ScoredImages

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: The checkpoint before any layer was taken out: the same file names in a folder of its own.
INT8 = {
    name: f"checkpoint/int8/{name.split('/')[-1]}" for name in (files.QDQ_PROGRAM, files.LOGITS, files.QUANTIZATION)
}


def keep_int8(run: Run) -> None:
    """Copy the trained checkpoint aside, once; a copy that the manifest does not list yet is made again."""
    if all(run.has(kept) for kept in INT8.values()):
        return
    for name, kept in INT8.items():
        write_atomic(run.path / kept, run.file(name).read_bytes())
    run.record(*INT8.values())


def write_checkpoint(
    run: Run, program: ExportedProgram, images: ScoredImages, float_layers: tuple[str, ...]
) -> np.ndarray:
    """Program, logits and facts with these layers in float, in place of those of the run; not listed yet.

    Args:
        program: with all layers int8.

    Returns:
        The QDQ program's logits [N, classes], of the file that was written.
    """
    import torch

    from pipeline.quantization.float_layers import leave_float
    from pipeline.training.setting import EVAL_BATCH, collect_logits
    from targets.program import load_program

    kept = load_logits(run, INT8[files.LOGITS])
    if not float_layers:
        for name, copy in INT8.items():
            write_atomic(run.path / name, run.file(copy).read_bytes())
        return kept.stages["qdq"]
    save_program(leave_float(program, float_layers), run.path / files.QDQ_PROGRAM)
    reloaded = load_program(run.path / files.QDQ_PROGRAM).module()
    logits = collect_logits(
        "scoring the mixed program",
        reloaded,
        images.split,
        images.transform,
        EVAL_BATCH,
        torch.device("cpu"),
        images.indices,
        images.workers,
    )
    stages = {**kept.stages, "qdq": logits}
    files.save_logits(StageLogits(kept.labels, kept.indices, kept.digest, stages), run.path / files.LOGITS)
    facts = run.read_json(INT8[files.QUANTIZATION])
    facts["scheme"]["float_layers"] = sorted({*facts["scheme"].get("float_layers", ()), *float_layers})
    write_json(run.path / files.QUANTIZATION, facts)
    return logits
