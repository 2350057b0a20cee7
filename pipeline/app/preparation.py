"""How a photo becomes the pixels that a file takes, in steps that an app can take on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.models.build import ModelConfig

#: Of Pillow's resampling (ImagingResampleInner in Resample.c of release 13): a bicubic edge that overshoots is clipped
#: after the first pass, so the order shows.
PASSES = (
    "along x, then along y, rounded to 8 bits after each, with weights that are whole numbers over 2^22; y first where "
    "the height shrinks by more than twice as many pixels as the width"
)


@dataclass(frozen=True)
class Preparation:
    """Upright RGB of any size -> uint8 RGB [height, width, 3]: resize, then crop the middle.

    Attributes:
        short_side: length that the short side is resized to; the long one becomes int(short_side * long / short), as
            torchvision's Resize has it. None: both sides are resized to `resized`, whatever the photo's shape.
        interpolation: name of Pillow's filter; all but `nearest` average over what a pixel covers (antialias).
    """

    height: int
    width: int
    short_side: int | None
    resized: tuple[int, int] | None
    interpolation: str

    @classmethod
    def of(cls, config: ModelConfig) -> Preparation:
        """What timm's evaluation transform does for this model.

        Raises:
            UsageError: a transform that the code of an app here does not have.
        """
        _, height, width = config.input_size
        scaled = math.floor(height / config.crop_pct), math.floor(width / config.crop_pct)
        squashes = config.crop_mode == "squash"
        if config.crop_pct > 1 or config.crop_mode not in ("center", "squash") or (height != width and not squashes):
            raise UsageError(
                f"{config.name} prepares images with crop_mode {config.crop_mode}, crop_pct {config.crop_pct:g} and "
                f"input {height}x{width}: export-app writes code for a centre crop of a square, or for a squashed "
                "image, and never pads"
            )
        resized = scaled if squashes else None
        return cls(height, width, None if squashes else scaled[0], resized, config.interpolation)

    def as_json(self) -> dict[str, object]:
        """What preprocessing.json holds."""
        resize: dict[str, object] = {
            "interpolation": self.interpolation,
            "antialias": self.interpolation != "nearest",
            "order": PASSES,
        }
        if self.resized is None:
            resize |= {"short_side": self.short_side, "long_side": "short_side * long / short, rounded down"}
        else:
            resize |= {"height": self.resized[0], "width": self.resized[1]}
        return {
            "layout": "NHWC",
            "dtype": "uint8",
            "range": [0, 255],
            "color_order": "RGB",
            "exif_orientation": "applied before anything else",
            "transparency": "laid on white",
            "resize": resize,
            "crop": {
                "where": "centre",
                "height": self.height,
                "width": self.width,
                "offset": "(resized - crop) / 2, rounded half to even",
            },
            "normalization": "inside the file: give it the pixels as they are",
        }
