"""Builds an untrained model by name, and describes it in a ModelConfig that is enough to build and feed it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.models.zoo import ZOO, is_t2t, timm_name

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
T2T_IMAGE_SIDE = 224  # img_size of the published T2T-ViT checkpoints
T2T_OWNER = "the authors' _cfg of T2T-ViT"  # of their t2t_vit.py
T2T_CFG: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_pct": 0.9, "interpolation": "bicubic"}


@dataclass(frozen=True)
class ModelConfig:
    """What the rest of the program must know to rebuild a model and to feed it.

    Attributes:
        input_size: channels, height, width of one image.
        mean: per channel, of pixels scaled to 0..1; likewise `std`.
        crop_pct: share of the resized image that the evaluation crop keeps.
        crop_mode: timm's name of how the image is brought to input_size; `center` for all zoo models.
        qk_scale: attention scale of a T2T-ViT; None for every other model.
    """

    name: str
    num_classes: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    qk_scale: float | None = None
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        if len(self.mean) != self.input_size[0] or len(self.std) != self.input_size[0]:
            raise UsageError(
                f"{self.name}: mean {self.mean} and std {self.std} do not fit {self.input_size[0]} channels"
            )
        if is_t2t(self.name) != (self.qk_scale is not None):
            raise UsageError(f"qk_scale {self.qk_scale} with {self.name}: every T2T-ViT has one, no other model has")
        if self.qk_scale is not None and not 0 < self.qk_scale < float("inf"):
            raise UsageError(
                f"qk_scale {self.qk_scale} is not a positive number: published T2T-ViT weights need 0.0625"
            )


def build(
    name: str, num_classes: int, img_size: int | None = None, qk_scale: float | None = None
) -> tuple[nn.Module, ModelConfig]:
    """An untrained model in eval mode with a head of `num_classes`.

    Args:
        name: zoo or timm name.
        img_size: side of the square input in pixels; None takes the model's own.
        qk_scale: T2T-ViT only; None means head_dim ** -0.5, as the authors' fresh models (see
            pipeline.models.weights.peek for what given weights need).

    Raises:
        UsageError: unknown name, or a size, scale or class count that the model cannot have.
    """
    if num_classes < 1:
        raise UsageError(f"{name} cannot have {num_classes} classes: give at least 1")
    if img_size is not None and img_size < 1:
        raise UsageError(f"image size {img_size} is not a positive number of pixels")
    make = _build_t2t if is_t2t(name) else _build_timm
    return make(name, num_classes, img_size, qk_scale)


def _build_t2t(
    name: str, num_classes: int, img_size: int | None, qk_scale: float | None
) -> tuple[nn.Module, ModelConfig]:
    from pipeline.models.t2t_vit import T2TViT

    side = img_size or T2T_IMAGE_SIDE
    depth = ZOO[name].depth
    assert depth is not None  # of a T2T-ViT
    try:
        model = T2TViT(depth, num_classes, side, qk_scale)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    config = ModelConfig(
        name=name,
        num_classes=num_classes,
        input_size=(3, side, side),
        qk_scale=model.qk_scale if qk_scale is None else qk_scale,
        **T2T_CFG,
    )
    return model.eval(), config


def _build_timm(
    name: str, num_classes: int, img_size: int | None, qk_scale: float | None
) -> tuple[nn.Module, ModelConfig]:
    if qk_scale is not None:
        raise UsageError(f"{name} has no qk_scale (given: {qk_scale}): only T2T-ViT models do, leave the option out")
    model = create_timm(timm_name(name), num_classes, img_size)
    import timm.data

    data = timm.data.resolve_data_config({"img_size": img_size} if img_size else {}, model=model)
    config = ModelConfig(
        name=name,
        num_classes=num_classes,
        input_size=tuple(data["input_size"]),
        mean=tuple(float(m) for m in data["mean"]),
        std=tuple(float(s) for s in data["std"]),
        crop_pct=float(data["crop_pct"]),
        interpolation=str(data["interpolation"]),
        crop_mode=str(data["crop_mode"]),
    )
    return model.eval(), config


def create_timm(full_name: str, num_classes: int | None, img_size: int | None, **options: Any) -> nn.Module:
    """timm.create_model, told the image size where the architecture depends on it.

    Args:
        num_classes: None keeps the head of the published weights.
        options: passed on, for instance `pretrained`.

    Raises:
        UsageError: timm cannot build this combination.
    """
    from calibration.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import timm

    if num_classes is not None:
        options["num_classes"] = num_classes
    pretrained_cfg = timm.get_pretrained_cfg(full_name)
    # Convolutional networks take any size and no img_size argument; timm marks the others with fixed_input_size.
    if img_size is not None and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = img_size
    try:
        return timm.create_model(full_name, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"timm cannot build {full_name} with {options}: {error}") from None
