"""The training plan: every number that decides the result of a fine-tuning, checked once, stored in the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import UsageError


@dataclass(frozen=True)
class TrainPlan:
    """Hyper-parameters of one training phase.

    Attributes:
        epochs: passes over the training split; 0 skips the phase.
        batch_size: images a step.
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

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 0)
        _at_least("batch-size", self.batch_size, 2)  # BatchNorm in training needs two images
        _at_least("seed", self.seed, 0)
        if self.max_steps is not None:
            _at_least("max-steps", self.max_steps, 1)
        _between("half-size-epochs", self.half_size_epochs, 0, self.epochs)
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"--{name.replace('_', '-')} is {value}: give a number above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"--weight-decay is {self.weight_decay}: give a number of at least 0")
        for name in ("warmup_fraction", "label_smoothing", "observer_freeze", "batch_norm_freeze"):
            _between(name.replace("_", "-"), getattr(self, name), 0.0, 1.0)
        if not 0.0 < self.scale_min <= 1.0:
            raise UsageError(f"--scale-min is {self.scale_min}: give a fraction above 0 and at most 1")

    def steps_per_epoch(self, images: int) -> int:
        """Optimizer steps of one epoch over `images` training images; a last batch of one image is dropped."""
        steps = images // self.batch_size + (images % self.batch_size > 1)
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
