"""`train`: make float weights from images, with stochastic depth where the plan asks for it.

Stochastic depth (Huang et al. 2016), with the rate growing from 0 at the first block to its full value at the last,
as the authors of T2T-ViT have it (`torch.linspace(0, drop_path_rate, depth)` in their t2t_vit.py). Nothing of it is
in the weights or in evaluation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from calibration.torchvision_compat import ensure_torchvision
from pipeline.errors import UsageError
from pipeline.files import write_atomic
from pipeline.models.t2t_vit import Block
from pipeline.progress import Say
from pipeline.run.layout import METRICS_FILE, RESUME_FILE
from pipeline.training.distributed import joined, world
from pipeline.training.loop import EpochRecord, fit
from pipeline.training.plan import FloatPlan, FloatRecipe, FloatTraining
from pipeline.training.setting import Setting
from pipeline.training.subject import (
    choose_device,
    eval_transform,
    load_data,
    load_subject,
    look_ahead,
    seed_everything,
)
from pipeline.training.trainees import Execution, FloatTrainee, choose_precision

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
    given = training.preprocessing
    subject = load_subject(training.model, data, training.weights, plan.seed, training.img_size, given=given)
    threads = seed_everything(plan.seed, training.threads)
    setting = Setting.of(subject, training, None, say)
    say(f"{training.file}: {len(data.train)} training and {len(data.val)} validation images of {data.name}")
    for line in (*subject.told(), _told(plan)):
        say(line)

    def on_history(history: list[EpochRecord]) -> None:
        lines = "".join(json.dumps(asdict(r), allow_nan=False) + "\n" for r in history)
        write_atomic(training.folder / METRICS_FILE, lines)

    module = subject.model.to(setting.device)
    phase = setting.phase("float", module, plan, resume_file.parent, on_history, augment=plan.augment)
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
    from pipeline.models.preprocessing import complete

    info = look_ahead(training, training.weights, training.model)
    module, config = build(training.model, 2, info.img_size, info.qk_scale)
    config, _ = complete(config, info.known, info.silent)
    with stochastic_depth(module, plan.drop_path):
        pass
    try:
        plan.augment.transform(eval_transform(config))
    except ValueError as error:
        raise UsageError(str(error)) from None
    choose_precision(training.amp, choose_device(training.device))


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


#: What timm calls the place in a block that a branch goes through.
PLACES = ("drop_path", "drop_path1", "drop_path2")


@contextmanager
def stochastic_depth(module: nn.Module, rate: float) -> Iterator[None]:
    """`module` drops whole branches of single images in training mode while the body runs.

    Args:
        rate: probability at the last block; 0 leaves the module as it is.

    Raises:
        UsageError: it has no branches that can be dropped.
    """
    if not rate:
        yield
        return
    own, others = _blocks(module)
    if not own and not others:
        raise UsageError("--drop-path: this model has no residual branches that can be dropped: leave it out")
    ensure_torchvision()
    from timm.layers import DropPath

    blocks = own or others
    handles: list[Any] = []
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for block, block_rate in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        if isinstance(block, Block):
            handles += [branch.register_forward_hook(_dropping(block_rate)) for branch in (block.attn, block.mlp)]
            continue
        for name in PLACES:
            if isinstance(place := getattr(block, name, None), nn.Module):
                replaced.append((block, name, place))
                setattr(block, name, DropPath(block_rate))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for block, name, place in replaced:
            setattr(block, name, place)


def _blocks(module: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of a T2T-ViT, and those of timm's models, in order."""
    parts = list(module.modules())
    timm = [p for p in parts if any(isinstance(getattr(p, name, None), nn.Module) for name in PLACES)]
    return [p for p in parts if isinstance(p, Block)], timm


def _dropping(rate: float):  # type: ignore[no-untyped-def]
    ensure_torchvision()
    from timm.layers import drop_path

    def hook(branch: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dropped: Tensor = drop_path(output, rate, branch.training)
        return dropped

    return hook
