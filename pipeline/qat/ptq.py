"""Post-training quantization of a run's float model: a finished run in, the path of its calibrated QDQ program out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config import RunConfig
from pipeline.errors import RunError
from pipeline.qat import checkpoint as files
from pipeline.qat.calibrated import calibrated_graph, calibration_set
from pipeline.qat.graph import to_qdq_program
from pipeline.qat.quantizer import Scheme
from pipeline.qat.subject import load_data, load_subject, seed_everything
from pipeline.rundir import Run

#: Files by the bits of activations.
PTQ_PROGRAMS = {8: "checkpoint/ptq.pt2", 16: "checkpoint/ptq-w8a16.pt2"}
PTQ_PROGRAM = PTQ_PROGRAMS[8]


def ptq_program(run: Run, say: Callable[[str], None], activation_bits: int = 8) -> Path:
    """Calibrate the run's float weights with the run's own scheme and subset; kept in the run once it was made.

    Args:
        activation_bits: 8 or 16, whatever the run's scheme has.

    Raises:
        RunError: the data gives another calibration set than the one in the checkpoint.
        DataError: the data is gone.
    """
    name = PTQ_PROGRAMS[activation_bits]
    if run.has(name):
        return run.file(name)
    config = RunConfig.from_dict(run.read_json(files.CONFIG))
    quantization = run.read_json(files.QUANTIZATION)
    width = "" if activation_bits == 8 else f" with {activation_bits}-bit activations"
    say(f"calibrating the float model for post-training quantization{width}")
    seed_everything(config.seed, config.threads)
    data = load_data(config.data, config.skip_bad)
    subject = load_subject(run.model, data, str(run.file(files.FLOAT_WEIGHTS)), config.seed, config.img_size)
    images = calibration_set(subject, config.calibration_images, config.seed, config.workers)
    if images.digest != quantization["calibration"]["digest"]:
        raise RunError(
            f"the calibration images of {config.data} changed since run {run.id} (digest {images.digest[:12]}, "
            f"then {quantization['calibration']['digest'][:12]}): its scales could not be compared; quantize again"
        )
    scheme = replace(Scheme(**quantization["scheme"]), activation_bits=activation_bits)
    graph, _ = calibrated_graph(subject, config, scheme, images, torch.device("cpu"))
    files.save_program(to_qdq_program(graph, subject.input_size), run.path / name)
    run.record(name)
    return run.path / name
