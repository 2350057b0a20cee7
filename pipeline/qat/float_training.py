"""`train` from end to end: a model, data and a plan in, one safetensors file of float weights out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.qat.plan import TrainPlan
from pipeline.qat.setting import Say, Setting, evenly
from pipeline.qat.subject import choose_amp, choose_device, load_data, load_subject, seed_everything
from pipeline.qat.train import RESUME_FILE, EpochRecord, fit
from pipeline.qat.trainees import FloatTrainee
from pipeline.rundir import write_atomic

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FloatTraining:
    """Options of `train` beside the plan; see pipeline.config.RunConfig for their meaning."""

    model: str
    data: str
    weights: str
    out: Path
    half: bool = False
    img_size: int | None = None
    skip_bad: bool = False
    device: str = "auto"
    amp: str = "auto"
    threads: int = 0
    workers: int = 0
    checkpoint_steps: int = 200

    def __post_init__(self) -> None:
        if self.out.suffix != SUFFIX:
            raise UsageError(f"--out {self.out} must end in {SUFFIX}")
        if self.out.is_dir():
            raise UsageError(f"--out {self.out} is a folder: give the name of a file in it")

    @property
    def folder(self) -> Path:
        """Beside the result: resume point, metrics and TensorBoard."""
        return self.out.with_suffix(".training")


def train_float(training: FloatTraining, plan: TrainPlan, resume: bool, say: Say) -> tuple[int, int]:
    """Train, write `training.out` whole or not at all, and return (right, n) on the validation split.

    Args:
        resume: continue from the resume point of an interrupted training to the same `out`.

    Raises:
        UsageError: a resume point is there but was not asked for, or the other way round.
    """
    from pipeline.models.weights import save_weights

    resume_file = training.folder / "float" / RESUME_FILE
    if resume and not resume_file.exists():
        raise UsageError(f"--resume: {resume_file} does not exist, so there is nothing to continue")
    if resume_file.exists() and not resume:
        raise UsageError(f"{resume_file} is left of an interrupted training: add --resume, or remove it to start anew")
    data = load_data(training.data, training.skip_bad)
    subject = load_subject(training.model, data, training.weights, plan.seed, training.img_size)
    threads = seed_everything(plan.seed, training.threads)
    device = choose_device(training.device)
    setting = Setting(
        subject=subject,
        device=device,
        amp=choose_amp(training.amp, device),
        val_indices=evenly(len(data.val), None),
        workers=training.workers,
        checkpoint_steps=training.checkpoint_steps,
        say=say,
    )

    def on_history(history: list[EpochRecord]) -> None:
        lines = "".join(json.dumps(asdict(r), allow_nan=False) + "\n" for r in history)
        write_atomic(training.folder / "metrics.jsonl", lines)

    module = subject.model.to(device)
    phase = setting.phase("float", module, plan, training.folder / "float", on_history)
    fit(FloatTrainee(module, plan), plan, phase)
    if training.half:
        _round_to_half(module)  # what is scored is what is written
    right, n = phase.evaluate()
    facts = {
        "data": data.name,
        "val_right": str(right),
        "val_n": str(n),
        "plan": json.dumps(asdict(plan)),
        "threads": str(threads),
    }
    module.cpu().eval()
    save_weights(module, subject.model_config, training.out, data.classes, training.half, facts)
    resume_file.unlink(missing_ok=True)
    return right, n


def _round_to_half(module: nn.Module) -> None:
    from pipeline.models.weights import is_halved

    for key, value in module.state_dict().items():
        if is_halved(key, value):
            value.copy_(value.half())
