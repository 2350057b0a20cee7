"""The checked plan of a training phase, and how it is made from the options of `train` and `quantize`.

The recipe "paper" is that of the authors of T2T-ViT for the lite models (github.com/yitu-opensource/T2T-ViT at
0f63dc9: README, section "Train", and the defaults of main.py); "light" is for few images and few epochs.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from calibration.augment import PAPER, PRESETS, Augmentation
from calibration.dataset import DIGITS
from pipeline.config import SPEED, ExecutionPlan, ImagesPlan, OptimizerPlan, QatPlan, RunConfig
from pipeline.errors import UsageError
from pipeline.models.zoo import is_t2t
from pipeline.options import Option, check


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Hyper-parameters of one training phase, made from checked options by pipeline.training.plan.

    Attributes:
        epochs: passes over the training split; 0 skips the phase.
        batch_size: images of one forward pass in one process.
        accumulate: forward passes whose gradients make one step, of batch_size x accumulate x processes images.
        lr: peak learning rate of AdamW, reached after the warm-up, then a half cosine to zero.
        weight_decay: on matrices and kernels; biases, norms, class token are exempt.
        warmup_fraction: of all steps, linear from zero.
        label_smoothing: of the cross-entropy.
        clip_norm: largest global gradient norm.
        seed: of shuffling, augmentation, dropout and weight initialisation.
        hflip: mirror half of the training images (off for digits: a mirrored 2 is no digit).
        scale_min: smallest area of the random crop, as a fraction of the image.
        max_steps: optimizer steps in an epoch at most; None means the whole split.
        observer_freeze: fraction of all steps after which activation and weight scales no longer move.
        batch_norm_freeze: fraction of all steps after which BatchNorm uses its running statistics.
        half_size_epochs: first epochs on images of half the height and width (float training only).
        ema: decay of the moving average of weights that is scored and kept; 0: the last weights.
        dropout: whether dropout is active in training.
        distill: share of the distillation loss in the objective, 1 - distill is the cross-entropy's (QAT only).
        temperature: of distillation.
        distill_features: weight of the distance of the residual stream to the float model's, after each block.
        ranges: of activations in QAT: "observed" (moving, then frozen), "learned" (LSQ), or "re-estimated" (observed,
            and measured anew with the final weights).
        range_lr: learning rate of learned ranges, relative to `lr`.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    clip_norm: float
    seed: int
    hflip: bool
    scale_min: float
    max_steps: int | None
    observer_freeze: float
    batch_norm_freeze: float
    half_size_epochs: int
    accumulate: int
    ema: float
    dropout: bool
    distill: float
    temperature: float
    distill_features: float
    ranges: str
    range_lr: float

    def steps_per_epoch(self, images: int, processes: int = 1) -> int:
        """Optimizer steps of one epoch over `images` training images.

        A last batch that would leave a process less than two images is dropped.
        """
        whole, rest = divmod(images, self.batch_size * processes)
        steps = math.ceil((whole + (rest >= 2 * processes)) / self.accumulate)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of `total`: linear warm-up, then half a cosine."""
        warmup = int(self.warmup_fraction * total)
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


T = TypeVar("T")

AUGMENTATION = "Augmentation, where it should differ from --augment"  # heading in `--help`
SUFFIX = ".safetensors"
FOLDER = Path("weights")
STREAM = "hfids/"
LIGHT = PRESETS["light"]
PAPER_EPOCHS = 300
PAPER_BATCH = 64  # of each of 8 GPUs
PAPER_LR, PAPER_STEP_IMAGES = 1e-3, 512  # `-b 64 --lr 1e-3` on 8 GPUs, or `-b 128` on 4
PAPER_EMA = 0.99996
PAPER_DROP_PATH = 0.1
WARMUP_EPOCHS, WARMUP_SHARE = 10, 0.1  # theirs are 10 of 300 epochs; never more than a tenth of all
LIGHT_EPOCHS, LIGHT_BATCH, LIGHT_LR = 12, 32, 5e-4
DIGITS_SCALE_MIN = 0.8  # digits fill their image
RANGE_LR = 10.0  # of learned ranges, relative to that of the weights
#: The part of a plan that float training does not look at; the loss is the cross-entropy alone.
NO_QAT: dict[str, Any] = {
    "observer_freeze": QatPlan.observer_freeze,
    "batch_norm_freeze": 0.5,  # as the bundled weights say of how they were made
    "distill": 0.0,
    "temperature": QatPlan.temperature,
    "distill_features": 0.0,
    "ranges": "observed",
    "range_lr": RANGE_LR,
}


@dataclass(frozen=True, kw_only=True)
class FloatPlan(TrainPlan):
    """A plan of float training.

    Attributes:
        augment: what the training images go through; `hflip` and `scale_min` of the plan are those of it.
        drop_path: rate of stochastic depth at the last block.
    """

    augment: Augmentation
    drop_path: float


@dataclass(frozen=True, kw_only=True)
class FloatTraining(ImagesPlan, ExecutionPlan):
    """Options of `train` that say what is trained, where and how fast.

    Attributes:
        out: file to write; None is `weights/MODEL-DATA.safetensors`, which must not be there yet.
        epoch_images: of a stream that does not say how many images it has.
    """

    model: str
    out: Annotated[
        Path | None,
        Option("The .safetensors file to write; FILE.training/ beside it keeps the curves.",
               unset="weights/MODEL-DATA.safetensors, if that is not there yet"),
    ] = None  # fmt: skip
    weights: Annotated[str, Option("Where to start from: none, demo, pretrained, hf-hub:USER/NAME or a file.")] = "none"
    epoch_images: Annotated[
        int | None, Option("Training images of a stream (hfids/) that does not tell their number.", unset="its own")
    ] = None
    half: Annotated[bool, Option("Write float16 (half the size; read back as float32).", names=("--half",))] = False

    def __post_init__(self) -> None:
        check(self)
        if self.file.suffix != SUFFIX:
            raise UsageError(f"--out {self.file} must end in {SUFFIX}")
        if self.file.is_dir():
            raise UsageError(f"--out {self.file} is a folder: give the name of a file in it")
        if self.out is None and self.file.exists():
            raise UsageError(f"{self.file} is there already: give --out {self.file} to replace it, or another name")
        if self.epoch_images is not None:
            if not self.data.lower().startswith(STREAM):
                raise UsageError(f"--epoch-images is for streams ({STREAM}...), and {self.data} is none: leave it out")
            if self.epoch_images < 1:
                raise UsageError(f"--epoch-images is {self.epoch_images}: give at least 1")

    @property
    def file(self) -> Path:
        return self.out or FOLDER / f"{_short(self.model)}-{_short(self.data)}{SUFFIX}"

    @property
    def folder(self) -> Path:
        """Beside the result: resume point, metrics and TensorBoard."""
        return self.file.with_suffix(".training")

    @property
    def spec(self) -> str:
        """The data set as calibration.sources opens it."""
        return self.data if self.epoch_images is None else f"{self.data}|{self.epoch_images}"


@dataclass(frozen=True, kw_only=True)
class FloatRecipe(OptimizerPlan):
    """Options of `train` that decide its result; None takes what the recipe has.

    Attributes:
        augment: "paper", "light" or "none"; None is "light" for the digits, which a mirror or a strong distortion makes
            into other digits, and "paper" for all else.
        warmup_epochs: epochs, or parts of one, in which the learning rate rises.
        clip_norm: no option of `train`.
    """

    augment: Annotated[
        str | None,
        Option("The recipe: paper (T2T-ViT's), light (crops and mirroring, for few images or epochs) or none.",
               unset="paper; light for the digits", choices=tuple(PRESETS)),
    ] = None  # fmt: skip
    epochs: Annotated[
        int | None,
        Option("Passes over the training split.", unset=f"paper {PAPER_EPOCHS}, else {LIGHT_EPOCHS}", least=0),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("Images of one forward pass in one process.", unset=f"paper {PAPER_BATCH}, else {LIGHT_BATCH}",
               least=2),
    ] = None  # fmt: skip
    lr: Annotated[
        float | None,
        Option("Peak learning rate of AdamW.",
               unset=f"paper {PAPER_LR:g} for {PAPER_STEP_IMAGES} images a step, with the square root for others; "
               f"else {LIGHT_LR:g}", above=0),
    ] = None  # fmt: skip
    warmup_epochs: Annotated[
        float | None,
        Option("Epochs in which the learning rate rises.", unset=f"{WARMUP_EPOCHS}, at most a tenth of all"),
    ] = None
    ema: Annotated[
        float | None,
        Option("Decay of the moving average of weights; 0: the last weights.", names=("--ema", "--ema-decay"),
               unset=f"paper {PAPER_EMA}, else 0", least=0, below=1,
               wanted="a decay of at least 0 and below 1, 0.999 for example"),
    ] = None  # fmt: skip
    drop_path: Annotated[
        float | None,
        Option("Rate of stochastic depth at the last block.", unset=f"paper {PAPER_DROP_PATH} for T2T-ViT, else 0",
               least=0, below=1, wanted="a rate of at least 0 and below 1"),
    ] = None  # fmt: skip
    auto_augment: Annotated[
        str | None,
        Option("A policy in timm's notation; '' for none.", unset=f"paper {PAPER.auto_augment}, else none",
               panel=AUGMENTATION),
    ] = None  # fmt: skip
    reprob: Annotated[
        float | None,
        Option("Probability of random erasing.", unset=f"paper {PAPER.reprob}, else 0", panel=AUGMENTATION),
    ] = None
    mixup: Annotated[
        float | None, Option("Alpha of mixup.", unset=f"paper {PAPER.mixup}, else 0", panel=AUGMENTATION)
    ] = None
    cutmix: Annotated[
        float | None, Option("Alpha of CutMix.", unset=f"paper {PAPER.cutmix}, else 0", panel=AUGMENTATION)
    ] = None
    color_jitter: Annotated[
        float | None,
        Option("Strength of colour jitter.", unset=f"light {LIGHT.color_jitter}, else 0", panel=AUGMENTATION),
    ] = None
    scale_min: Annotated[
        float | None,
        Option("Smallest area of the random crop, as a fraction.",
               unset=f"paper {PAPER.scale_min}, light {LIGHT.scale_min}, digits {DIGITS_SCALE_MIN}",
               panel=AUGMENTATION),
    ] = None  # fmt: skip
    hflip: Annotated[
        bool | None,
        Option("Mirror half of the images.", names=("--hflip/--no-hflip",), unset="yes, but the digits",
               panel=AUGMENTATION),
    ] = None  # fmt: skip
    half_size_epochs: Annotated[
        int, Option("How many of the first epochs see images of half the height and width.", panel=SPEED, least=0)
    ] = 0
    clip_norm: float = QatPlan.clip_norm

    def __post_init__(self) -> None:
        check(self)

    def plan(self, model: str, data: str, processes: int = 1) -> FloatPlan:
        """The plan for a model and a data set on so many processes.

        Raises:
            UsageError: an unknown recipe, or a number that no training can have.
        """
        name = self.augment or ("light" if data == DIGITS else "paper")
        paper = name == "paper"
        epochs = _or(self.epochs, PAPER_EPOCHS if paper else LIGHT_EPOCHS)
        if self.half_size_epochs > epochs:
            raise UsageError(f"--half-size-epochs is {self.half_size_epochs}: give a number from 0 to {epochs}")
        batch_size = _or(self.batch_size, PAPER_BATCH if paper else LIGHT_BATCH)
        augment = self._augmentation(name, data)
        return FloatPlan(
            epochs=epochs,
            batch_size=batch_size,
            lr=_or(self.lr, _paper_lr(batch_size * self.accumulate * processes) if paper else LIGHT_LR),
            warmup_fraction=self._warmup(epochs),
            clip_norm=self.clip_norm,
            ema=_or(self.ema, PAPER_EMA if paper else 0.0),
            drop_path=_or(self.drop_path, PAPER_DROP_PATH if paper and is_t2t(model) else 0.0),
            augment=augment,
            hflip=augment.hflip,
            scale_min=augment.scale_min,
            half_size_epochs=self.half_size_epochs,
            dropout=True,  # what the model itself has
            **_fields(OptimizerPlan, self),
            **NO_QAT,
        )

    def _augmentation(self, name: str, data: str) -> Augmentation:
        preset = augmentation_of(name, data)
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


def augmentation_of(name: str, data: str) -> Augmentation:
    """A preset on a data set: digits are never mirrored, and little of them is cropped."""
    preset = PRESETS[name]
    if data != DIGITS:
        return preset
    scale_min = DIGITS_SCALE_MIN if name == "light" else preset.scale_min
    return dataclasses.replace(preset, hflip=False, scale_min=scale_min)


def tuning_plan(config: RunConfig, head_replaced: bool) -> FloatPlan:
    """Of the float training that `quantize` does before QAT: the light recipe.

    Options that are about the size and regularisation of a step count for it too; dropout, moving average, distillation
    and ranges are about QAT alone.
    """
    default_epochs = config.epochs if head_replaced else 0
    recipe = FloatRecipe(
        augment="light",
        epochs=_or(config.float_epochs, default_epochs),
        batch_size=config.batch_size,
        lr=config.float_lr,
        clip_norm=config.clip_norm,
        **_fields(OptimizerPlan, config),
    )
    return recipe.plan(config.model, config.data)


def qat_plan(config: RunConfig) -> TrainPlan:
    """Of QAT, on images that go through the light augmentation."""
    augment = augmentation_of("light", config.data)
    return TrainPlan(
        **_fields(QatPlan, config),
        warmup_fraction=WARMUP_SHARE,
        hflip=augment.hflip,
        scale_min=augment.scale_min,
        half_size_epochs=0,
        range_lr=RANGE_LR,
    )


def _fields(plan: type, options: Any) -> dict[str, Any]:
    """The fields of `plan` from `options` that are composed of it."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(plan)}


def _or(given: T | None, default: T) -> T:
    return default if given is None else given


def _paper_lr(step_images: int) -> float:
    """The authors' learning rate for another step size: its square root, which fits Adam (Malladi et al. 2022)."""
    return PAPER_LR * math.sqrt(max(1, step_images) / PAPER_STEP_IMAGES)


def _short(data: str) -> str:
    """The last part of the name of a model or data set, as a file may be called."""
    last = re.split(r"[/\\]", data.split("|", 1)[0].rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "data"
