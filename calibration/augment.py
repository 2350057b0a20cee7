"""Training augmentation, by timm: random changes of each image, and mixing of the images of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from calibration.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from calibration.preprocess import EvalTransform

RATIO_LIGHT = (0.8, 1.25)
RATIO_PAPER = (3 / 4, 4 / 3)  # torchvision's and timm's default, `--ratio` of the authors' main.py


@dataclass(frozen=True)
class Augmentation:
    """What a training image goes through, all by timm's transforms; the defaults are the light preset.

    Attributes:
        crop: whether a random part of the image is taken; else the evaluation crop, and nothing is changed at all.
        scale_min: smallest area of that part, as a fraction of the image.
        ratio: smallest and largest width over height of it.
        hflip: mirror half of the images.
        color_jitter: strength for brightness, contrast and saturation; 0: none.
        auto_augment: a policy in timm's notation, `rand-m9-mstd0.5-inc1` for example; empty: none.
        reprob: probability that a rectangle is replaced by noise (random erasing).
        random_interpolation: bilinear or bicubic by chance; else that of the evaluation.
        mixup, cutmix: alpha of the Beta distribution that the share of two mixed images is drawn from; 0: none. With
            both, one of the two is drawn for each batch.

    Raises:
        ValueError: from the constructor, a strength that is none.
    """

    crop: bool = True
    scale_min: float = 0.6
    ratio: tuple[float, float] = RATIO_LIGHT
    hflip: bool = True
    color_jitter: float = 0.2
    auto_augment: str = ""
    reprob: float = 0.0
    random_interpolation: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale_min <= 1:
            raise ValueError(f"--scale-min is {self.scale_min}: give a fraction above 0 and at most 1")
        if not 0 <= self.reprob <= 1:
            raise ValueError(f"--reprob is {self.reprob}: give a probability from 0 to 1")
        for name in ("color_jitter", "mixup", "cutmix"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--{name.replace('_', '-')} is {value}: give a number of at least 0")
        pixels = (self.hflip, self.color_jitter, self.auto_augment, self.reprob)
        if not self.crop and any(pixels):
            raise ValueError(
                "without augmentation there is no --hflip, --color-jitter, --auto-augment or --reprob: use --augment "
                "light, or leave them out"
            )

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def transform(self, evaluation: EvalTransform) -> Callable[[Image], Tensor]:
        """PIL RGB -> float32 [3, H, W], normalised as for evaluation. Draws from random, numpy and torch.

        Raises:
            ValueError: timm does not know the policy.
        """
        if not self.crop:
            return evaluation.build()
        ensure_torchvision()
        from timm.data import create_transform
        from timm.data.auto_augment import posterize as timm_posterize
        from timm.data.transforms import MaybeToTensor

        try:
            transform: Any = create_transform(
                input_size=evaluation.input_size,
                is_training=True,
                scale=(self.scale_min, 1.0),
                ratio=self.ratio,
                hflip=0.5 if self.hflip else 0.0,
                color_jitter=self.color_jitter or None,  # type: ignore[arg-type]
                auto_augment=self.auto_augment or None,
                interpolation="random" if self.random_interpolation else evaluation.interpolation,
                mean=evaluation.mean,
                std=evaluation.std,
                re_prob=self.reprob,
                re_mode="pixel",
            )
        except (AssertionError, ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"--auto-augment {self.auto_augment!r} is no policy that timm knows ({error}): "
                f"{PAPER.auto_augment} or augmix-m3-w3, for example"
            ) from None
        for operation in _operations(transform):
            if operation.aug_fn is timm_posterize:
                operation.aug_fn = _posterize
        if self.auto_augment and self.color_jitter:
            # Beside a policy timm leaves the jitter out; who gives both wants both. It works on PIL images.
            from torchvision.transforms import ColorJitter

            tensors = next(i for i, step in enumerate(transform.transforms) if isinstance(step, MaybeToTensor))
            transform.transforms.insert(tensors, ColorJitter(*(self.color_jitter,) * 3))
        return cast("Callable[[Image], Tensor]", transform)

    def mixing(self, classes: int, label_smoothing: float) -> Mixing | None:
        """What mixes the images of a batch; None if nothing does."""
        return Mixing(self.mixup, self.cutmix, classes, label_smoothing) if self.mixes else None


#: Of the authors' main.py (github.com/yitu-opensource/T2T-ViT at 0f63dc9), defaults of its options --aa, --reprob,
#: --remode, --scale, --ratio, --hflip, --train-interpolation, --mixup, --cutmix. Its --color-jitter of 0.4 never acts:
#: timm leaves the jitter out beside --aa.
PAPER = Augmentation(
    scale_min=0.08,
    ratio=RATIO_PAPER,
    color_jitter=0.0,
    auto_augment="rand-m9-mstd0.5-inc1",
    reprob=0.25,
    random_interpolation=True,
    mixup=0.8,
    cutmix=1.0,
)
PRESETS = {
    "paper": PAPER,
    "light": Augmentation(),
    "none": Augmentation(crop=False, hflip=False, color_jitter=0.0, scale_min=1.0),
}


def _operations(transform: Any) -> Iterator[Any]:
    """Every operation of timm's policies within a transform."""
    from timm.data.auto_augment import AugmentOp

    if isinstance(transform, AugmentOp):
        yield transform
        return
    parts = transform if isinstance(transform, list | tuple) else ()
    for name in ("transforms", "ops", "policy"):
        parts = (*parts, *(getattr(transform, name, None) or ()))
    for part in parts:
        yield from _operations(part)


def _posterize(image: Image, bits: int, **options: Any) -> Image:
    """timm's, and black for no bit at all, as Pillow made it before 13, which refuses it."""
    from timm.data.auto_augment import posterize

    return cast("Image", posterize(image, bits, **options)) if bits >= 1 else image.point([0] * 256 * 3)


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019) of each image with the one opposite in its batch.

    Attributes:
        mixup, cutmix: alpha of the Beta distributions; at least one is above 0.
        classes: of the soft targets.
        label_smoothing: inside of the soft targets.
    """

    mixup: float
    cutmix: float
    classes: int
    label_smoothing: float

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] (mixed in place) and labels int64 [B] -> images, targets float32 [B, classes].

        Draws from numpy's global generator, as timm's does. The last image of an odd batch stays as it is.
        """
        ensure_torchvision()
        import torch
        from timm.data.mixup import Mixup, mixup_target

        mix = Mixup(self.mixup, self.cutmix, label_smoothing=self.label_smoothing, num_classes=self.classes)
        even = len(images) // 2 * 2
        mixed, targets = mix(images[:even], labels[:even])
        if even == len(images):
            return mixed, targets
        alone = mixup_target(labels[even:], self.classes, smoothing=self.label_smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, alone])
