"""The training plan: every number that decides the result of a fine-tuning, checked once, stored in the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.config import RANGE_NAMES
from pipeline.errors import UsageError, suggest


@dataclass(frozen=True)
class TrainPlan:
    """Hyper-parameters of one training phase.

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

    epochs: int = 1
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 0.03
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    hflip: bool = True
    scale_min: float = 0.6
    max_steps: int | None = None
    observer_freeze: float = 0.6
    batch_norm_freeze: float = 0.5
    half_size_epochs: int = 0
    accumulate: int = 1
    ema: float = 0.0
    dropout: bool = True
    distill: float = 0.0
    temperature: float = 2.0
    distill_features: float = 0.0
    ranges: str = "observed"
    range_lr: float = 10.0

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 0)
        _at_least("batch-size", self.batch_size, 2)  # BatchNorm in training needs two images
        _at_least("accumulate", self.accumulate, 1)
        _at_least("seed", self.seed, 0)
        if self.max_steps is not None:
            _at_least("max-steps", self.max_steps, 1)
        _between("half-size-epochs", self.half_size_epochs, 0, self.epochs)
        for name in ("lr", "clip_norm", "temperature", "range_lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"--{name.replace('_', '-')} is {value}: give a number above 0")
        for name in ("weight_decay", "distill_features"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"--{name.replace('_', '-')} is {value}: give a number of at least 0")
        if not 0.0 <= self.ema < 1.0:
            raise UsageError(f"--ema is {self.ema}: give a decay of at least 0 and below 1, 0.999 for example")
        if self.ranges not in RANGE_NAMES:
            raise UsageError(
                f"--ranges {self.ranges!r} is not one of {', '.join(RANGE_NAMES)}.{suggest(self.ranges, RANGE_NAMES)}"
            )
        for name in ("warmup_fraction", "label_smoothing", "observer_freeze", "batch_norm_freeze", "distill"):
            _between(name.replace("_", "-"), getattr(self, name), 0.0, 1.0)
        if not 0.0 < self.scale_min <= 1.0:
            raise UsageError(f"--scale-min is {self.scale_min}: give a fraction above 0 and at most 1")

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


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"--{name} is {value}: give at least {low}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"--{name} is {value}: give a number from {low} to {high}")
