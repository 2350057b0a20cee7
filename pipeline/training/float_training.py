"""Run `train` from end to end: from a model, data and a recipe to one safetensors file of float weights."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.files import write_atomic
from pipeline.run.layout import METRICS_FILE, RESUME_FILE
from pipeline.training.distributed import joined, world
from pipeline.training.drop_path import stochastic_depth
from pipeline.training.execution import Execution, choose_precision
from pipeline.training.float_plan import FloatPlan, FloatRecipe, FloatTraining
from pipeline.training.loop import Batch, EpochRecord, Phase, fit
from pipeline.training.setting import Say, Setting, evenly
from pipeline.training.subject import Subject, choose_device, eval_transform, load_data, load_subject, seed_everything
from pipeline.training.trainees import FloatTrainee

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Trained:
    """What `train` made; `right` of `n` validation images are classified rightly by the file as it was written."""

    file: Path
    right: int
    n: int


def train_float(training: FloatTraining, recipe: FloatRecipe, resume: bool, say: Say) -> Trained:
    """Train, and write `training.file` whole or not at all. Of several processes the first one writes.

    Args:
        resume: continue from the resume point of an interrupted training to the same file.

    Raises:
        UsageError: an invalid option, found before any image is read; a resume point is there but was not asked
            for, or the other way round.
    """
    resume_file = training.folder / "float" / RESUME_FILE
    if resume and not resume_file.exists():
        raise UsageError(f"--resume: {resume_file} does not exist, so there is nothing to continue")
    if resume_file.exists() and not resume:
        raise UsageError(f"{resume_file} is left of an interrupted training: add --resume, or remove it to start anew")
    plan = recipe.plan(training.model, training.data, int(os.environ.get("WORLD_SIZE", "1")))
    with joined(training.device):
        return _train(training, plan, resume_file, say)


def _train(training: FloatTraining, plan: FloatPlan, resume_file: Path, say: Say) -> Trained:
    from pipeline.models.weights import save_weights

    _check(training, plan)
    data = load_data(training.spec, training.skip_bad)
    subject = load_subject(training.model, data, training.weights, plan.seed, training.img_size)
    threads = seed_everything(plan.seed, training.threads)
    device = choose_device(training.device)
    setting = Setting(
        subject=subject,
        device=device,
        precision=choose_precision(training.amp, device),
        val_indices=evenly(len(data.val), None),
        workers=training.workers,
        checkpoint_steps=training.checkpoint_steps,
        say=say,
    )
    say(f"{training.file}: {len(data.train)} training and {len(data.val)} validation images of {data.name}")
    say(_told(plan))

    def on_history(history: list[EpochRecord]) -> None:
        lines = "".join(json.dumps(asdict(r), allow_nan=False) + "\n" for r in history)
        write_atomic(training.folder / METRICS_FILE, lines)

    module = subject.model.to(device)
    phase = _augmented(setting.phase("float", module, plan, resume_file.parent, on_history), subject, plan, training)
    with stochastic_depth(module, plan.drop_path):
        fit(FloatTrainee(module, plan, Execution(training.channels_last, training.compile)), plan, phase)
    if training.half:
        _round_to_half(module)  # what is scored is what is written
    module.eval()
    right, n = phase.evaluate()
    facts = {
        "data": data.name,
        "val_right": str(right),
        "val_n": str(n),
        "plan": json.dumps(asdict(plan)),
        "threads": str(threads),
        "processes": str(world().size),
    }
    module.cpu()
    if world().chief:
        save_weights(module, subject.model_config, training.file, data.classes, training.half, facts)
        resume_file.unlink(missing_ok=True)
    return Trained(training.file, right, n)


def _check(training: FloatTraining, plan: FloatPlan) -> None:
    """Refuse what can be refused without reading the images, which may take long."""
    from pipeline.models.build import build
    from pipeline.models.weights import peek
    from pipeline.models.zoo import check_name

    check_name(training.model)
    module, config = build(training.model, 2, training.img_size, peek(training.weights, training.model).qk_scale)
    with stochastic_depth(module, plan.drop_path):
        pass
    try:
        plan.augment.transform(eval_transform(config))
    except ValueError as error:
        raise UsageError(str(error)) from None
    choose_precision(training.amp, choose_device(training.device))


def _augmented(phase: Phase, subject: Subject, plan: FloatPlan, training: FloatTraining) -> Phase:
    """The same phase on images that go through the plan's augmentation."""
    from calibration.loader import train_loader

    transform = plan.augment.transform(subject.transform)
    mix = plan.augment.mixing(len(subject.data.classes), plan.label_smoothing)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        return train_loader(
            subject.data.train,
            transform,
            plan.batch_size,
            seed=plan.seed,
            epoch=epoch,
            workers=training.workers,
            start_step=first,
            shard=world().shard,
            mix=mix,
        )

    return dataclasses.replace(phase, batches=batches)


def _told(plan: FloatPlan) -> str:
    """The plan as one line for the reader: what a recipe chose is shown before it is used."""
    a = plan.augment
    used = [
        f"crops of at least {a.scale_min:g}" if a.crop else "no augmentation",
        *(["mirrored"] if a.hflip else []),
        *([f"colour jitter {a.color_jitter:g}"] if a.color_jitter else []),
        *([a.auto_augment] if a.auto_augment else []),
        *([f"random erasing {a.reprob:g}"] if a.reprob else []),
        *([f"mixup {a.mixup:g}"] if a.mixup else []),
        *([f"cutmix {a.cutmix:g}"] if a.cutmix else []),
    ]
    rest = [
        *([f"drop path {plan.drop_path:g}"] if plan.drop_path else []),
        *([f"EMA {plan.ema:g}"] if plan.ema else []),
        f"label smoothing {plan.label_smoothing:g}",
    ]
    images = plan.batch_size * plan.accumulate * world().size
    warmup = plan.warmup_fraction * plan.epochs
    return (
        f"{plan.epochs} epochs ({warmup:.3g} of warm-up), {images} images a step, learning rate {plan.lr:.3g}; "
        f"{', '.join(used)}; {', '.join(rest)}"
    )


def _round_to_half(module: nn.Module) -> None:
    from pipeline.models.weights import is_halved

    for key, value in module.state_dict().items():
        if is_halved(key, value):
            value.copy_(value.half())
