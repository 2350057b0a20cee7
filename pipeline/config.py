"""Options of `quantize`: what the user asked for in, a frozen and checked RunConfig out, with its JSON form."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RunError, UsageError, suggest

#: Names offered without importing torch; pipeline.quantization.observers is tested to hold exactly these.
OBSERVER_NAMES = ("moving-average", "histogram", "mse")
#: How activation ranges follow training; AMP_NAMES: the number format of the forward pass.
RANGE_NAMES = ("observed", "learned", "re-estimated")
AMP_NAMES = ("auto", "bf16", "fp16", "off")
#: Of a T2T-ViT: as published, or after pipeline.rewrites. Other models have one form.
FORM_NAMES = ("deploy", "official")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of one `quantize` run.

    Attributes:
        model: zoo or timm name.
        data: `digits`, an ImageFolder path, or a timm dataset name.
        weights: `demo`, `pretrained`, `none` or a file.
        form: of a T2T-ViT: `deploy` after exact rewrites (pipeline.rewrites), `official` as published.
        epochs: of quantization-aware fine-tuning; 0 is post-training quantization.
        float_epochs: of float fine-tuning before it; None means `epochs` if the head was replaced, else 0.
        calibration_images: size of the class-balanced subset that sets the first ranges.
        lr: peak learning rate of QAT. The weights arrive trained, and should stay near: docs/quantization.md.
        qk_scale: attention scale of T2T-ViT weights; None takes what the weights source says.
        limit_val: score at most so many validation images (evenly spread); None means all.
        skip_bad: leave unreadable images out instead of stopping.
        amp: `auto` (bfloat16 on a CUDA device that has it), `bf16`, `fp16` (with loss scaling) or `off`.
        accumulate, ema, dropout, distill, temperature, distill_features, ranges: see pipeline.training.plan.TrainPlan.
        equalize: even out channel ranges before quantization where that is exact (pipeline.rewrites.equalize).
        bias_correction: after calibration, move biases by the mean error of their layer (quantization.bias_correction).
        float_layers: names of Linears and convolutions that stay float (mixed precision), in training too.
        float_after_training: the same, but trained in int8 like the rest and taken out at the end: what a search finds.
        max_drop: search the fewest of these that keep the drop in top-1 on every target at so many percentage points;
            None: no search.
        drop_targets: that hold it; none named: all.
        rank_images: that the search ranks layers on.
        channels_last: store images and activations channels last in training.
        compile: run the forward and backward pass through torch.compile in training.
    """

    model: str
    data: str = "digits"
    weights: str = "demo"
    form: str = "deploy"
    epochs: int = 1
    float_epochs: int | None = None
    batch_size: int = 32
    lr: float = 3e-6
    float_lr: float = 3e-4
    weight_decay: float = 0.03
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    max_steps: int | None = None
    observer: str = "moving-average"
    observer_freeze: float = 0.6
    batch_norm_freeze: float = 0.5
    accumulate: int = 1
    ema: float = 0.0
    dropout: bool = False
    distill: float = 1.0
    temperature: float = 2.0
    distill_features: float = 0.0
    ranges: str = "re-estimated"
    equalize: bool = False
    bias_correction: bool = False
    float_layers: tuple[str, ...] = ()
    float_after_training: tuple[str, ...] = ()
    max_drop: float | None = None
    drop_targets: tuple[str, ...] = ()
    rank_images: int = 32
    channels_last: bool = False
    compile: bool = False
    calibration_images: int = 64
    qk_scale: float | None = None
    img_size: int | None = None
    limit_val: int | None = None
    skip_bad: bool = False
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"
    threads: int = 0
    workers: int = 0
    checkpoint_steps: int = 200

    def __post_init__(self) -> None:
        for name in ("float_layers", "float_after_training", "drop_targets"):
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))  # JSON gives a list, the command line None
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise UsageError(f"--max-drop is {self.max_drop}: give percentage points, from 0 to below 100")
        if self.drop_targets and self.max_drop is None:
            raise UsageError("--drop-target says which targets hold --max-drop: give that too, or leave it out")
        if self.observer not in OBSERVER_NAMES:
            raise UsageError(
                f"--observer {self.observer!r} is not one of {', '.join(OBSERVER_NAMES)}."
                f"{suggest(self.observer, OBSERVER_NAMES)}"
            )
        if self.form not in FORM_NAMES:
            raise UsageError(
                f"--form {self.form!r} is not one of {', '.join(FORM_NAMES)}.{suggest(self.form, FORM_NAMES)}"
            )
        if self.amp not in AMP_NAMES:
            raise UsageError(f"--amp {self.amp!r} is not one of {', '.join(AMP_NAMES)}.{suggest(self.amp, AMP_NAMES)}")
        for name, low in (
            ("calibration_images", 1),
            ("rank_images", 1),
            ("threads", 0),
            ("workers", 0),
            ("checkpoint_steps", 1),
        ):
            if getattr(self, name) < low:
                raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least {low}")
        for name in ("float_lr", "qk_scale"):  # TrainPlan checks the others
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"--{name.replace('_', '-')} is {value}: give a number above 0")
        for name, low in (("limit_val", 1), ("float_epochs", 0), ("img_size", 16)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} is {value}: give at least {low}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """The config of a run folder.

        Raises:
            RunError: an unknown key, with the nearest known one; no model.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise RunError(f"config key {key!r} is unknown to this version.{suggest(key, known)}")
        if "model" not in values:
            raise RunError("the config names no model: the file was damaged or edited by hand")
        return cls(**{"form": "official", **values})  # a run without it is older than the choice
