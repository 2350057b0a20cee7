"""What the user asked of a float training in, the rest by a recipe; its checked plan out.

The recipe "paper" is that of the authors of T2T-ViT for the lite models (github.com/yitu-opensource/T2T-ViT at 0f63dc9:
README, section "Train", and the defaults of main.py); "light" is for few images and few epochs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TypeVar

from calibration.augment import PRESETS, Augmentation
from calibration.dataset import DIGITS
from pipeline.errors import UsageError, suggest
from pipeline.models.zoo import is_t2t
from pipeline.training.plan import TrainPlan

T = TypeVar("T")

PAPER = "paper"
PAPER_EPOCHS = 300
PAPER_BATCH = 64  # of each of 8 GPUs
PAPER_LR, PAPER_STEP_IMAGES = 1e-3, 512  # `-b 64 --lr 1e-3` on 8 GPUs, or `-b 128` on 4
PAPER_EMA = 0.99996
PAPER_DROP_PATH = 0.1
WARMUP_EPOCHS, WARMUP_SHARE = 10, 0.1  # theirs are 10 of 300 epochs; never more than a tenth of all
LIGHT_EPOCHS, LIGHT_BATCH, LIGHT_LR = 12, 32, 5e-4
DIGITS_SCALE_MIN = 0.8  # digits fill their image


@dataclass(frozen=True)
class FloatPlan(TrainPlan):
    """A plan of float training.

    Attributes:
        augment: what the training images go through; `hflip` and `scale_min` of the plan are those of it.
        drop_path: rate of stochastic depth at the last block.
    """

    augment: Augmentation = dataclasses.field(default_factory=Augmentation)
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"--drop-path is {self.drop_path}: give a rate of at least 0 and below 1")
        if (self.hflip, self.scale_min) != (self.augment.hflip, self.augment.scale_min):
            raise ValueError("hflip and scale_min of the plan differ from those of its augmentation")


@dataclass(frozen=True)
class FloatRecipe:
    """Options of `train` that decide its result; None takes what the recipe has.

    Attributes:
        augment: "paper", "light" or "none"; None is "light" for the digits, which a mirror or a strong distortion makes
            into other digits, and "paper" for all else.
        warmup_epochs: epochs, or parts of one, in which the learning rate rises.
    """

    augment: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    warmup_epochs: float | None = None
    weight_decay: float = 0.03  # README of the authors, for T2T-ViT-7, -10 and -12
    label_smoothing: float = 0.1
    ema: float | None = None
    drop_path: float | None = None
    auto_augment: str | None = None
    reprob: float | None = None
    color_jitter: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    scale_min: float | None = None
    hflip: bool | None = None
    half_size_epochs: int = 0
    max_steps: int | None = None
    seed: int = 0

    def plan(self, model: str, data: str, processes: int = 1) -> FloatPlan:
        """The plan for a model and a data set on so many processes.

        Raises:
            UsageError: an unknown recipe, or a number that no training can have.
        """
        name = self.augment or ("light" if data == DIGITS else PAPER)
        if name not in PRESETS:
            raise UsageError(f"--augment {name!r} is not one of {', '.join(PRESETS)}.{suggest(name, list(PRESETS))}")
        paper = name == PAPER
        epochs = _or(self.epochs, PAPER_EPOCHS if paper else LIGHT_EPOCHS)
        batch_size = _or(self.batch_size, PAPER_BATCH if paper else LIGHT_BATCH)
        augment = self._augmentation(name, data)
        try:
            return FloatPlan(
                epochs=epochs,
                batch_size=batch_size,
                accumulate=self.accumulate,
                lr=_or(self.lr, _paper_lr(batch_size * self.accumulate * processes) if paper else LIGHT_LR),
                warmup_fraction=self._warmup(epochs),
                weight_decay=self.weight_decay,
                label_smoothing=self.label_smoothing,
                ema=_or(self.ema, PAPER_EMA if paper else 0.0),
                drop_path=_or(self.drop_path, PAPER_DROP_PATH if paper and is_t2t(model) else 0.0),
                augment=augment,
                hflip=augment.hflip,
                scale_min=augment.scale_min,
                half_size_epochs=self.half_size_epochs,
                max_steps=self.max_steps,
                seed=self.seed,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _augmentation(self, name: str, data: str) -> Augmentation:
        preset = PRESETS[name]
        if data == DIGITS:
            scale_min = DIGITS_SCALE_MIN if name == "light" else preset.scale_min
            preset = dataclasses.replace(preset, hflip=False, scale_min=scale_min)
        names = ("auto_augment", "reprob", "color_jitter", "mixup", "cutmix", "scale_min", "hflip")
        given = {key: getattr(self, key) for key in names if getattr(self, key) is not None}
        try:
            return dataclasses.replace(preset, **given)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _warmup(self, epochs: int) -> float:
        """Share of all steps."""
        if self.warmup_epochs is None:
            return min(WARMUP_SHARE, WARMUP_EPOCHS / max(1, epochs))
        if not 0 <= self.warmup_epochs <= epochs:
            raise UsageError(f"--warmup-epochs is {self.warmup_epochs:g}: give a number from 0 to {epochs}")
        return self.warmup_epochs / max(1, epochs)


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def _paper_lr(step_images: int) -> float:
    """The authors' learning rate for another step size: its square root, which fits Adam (Malladi et al. 2022)."""
    return PAPER_LR * math.sqrt(max(1, step_images) / PAPER_STEP_IMAGES)
