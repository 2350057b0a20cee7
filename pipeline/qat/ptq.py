"""Post-training quantization of a run's float model: a finished run in, the path of its calibrated QDQ program out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.config import RunConfig
from pipeline.errors import RunError
from pipeline.qat import checkpoint as files
from pipeline.qat.finetune import run_calibration
from pipeline.qat.graph import prepare, to_qdq_program
from pipeline.qat.quantizer import Scheme
from pipeline.qat.subject import load_data, load_subject, seed_everything
from pipeline.rewrites.deploy import in_form
from pipeline.rundir import Run

PTQ_PROGRAM = "checkpoint/ptq.pt2"


def ptq_program(run: Run, say: Callable[[str], None]) -> Path:
    """Calibrate the run's float weights with the run's own scheme and subset; kept in the run once it was made.

    Raises:
        RunError: the data gives another calibration set than the one in the checkpoint.
        DataError: the data is gone.
    """
    if run.has(PTQ_PROGRAM):
        return run.file(PTQ_PROGRAM)
    config = RunConfig.from_dict(run.read_json(files.CONFIG))
    quantization = run.read_json(files.QUANTIZATION)
    say("calibrating the float model for post-training quantization")
    seed_everything(config.seed, config.threads)
    data = load_data(config.data, config.skip_bad)
    subject = load_subject(run.model, data, str(run.file(files.FLOAT_WEIGHTS)), config.seed, config.img_size)
    graph = prepare(in_form(subject.model, config.form), subject.input_size, Scheme(**quantization["scheme"]))
    seen = run_calibration(graph, subject, config.calibration_images, config.seed, torch.device("cpu"), config.workers)
    if seen["digest"] != quantization["calibration"]["digest"]:
        raise RunError(
            f"the calibration images of {config.data} changed since run {run.id} (digest {seen['digest'][:12]}, "
            f"then {quantization['calibration']['digest'][:12]}): its scales could not be compared; quantize again"
        )
    files.save_program(to_qdq_program(graph, subject.input_size), run.path / PTQ_PROGRAM)
    run.record(PTQ_PROGRAM)
    return run.path / PTQ_PROGRAM
