"""The training plan: every number that decides the result of one training phase, as it is stored in the run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Hyper-parameters of one training phase, made from checked options by pipeline.training.float_plan.

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
