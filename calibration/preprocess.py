"""Reads image files and prepares them for evaluation: upright RGB, resized, cropped and normalised."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from calibration.dataset import DataError
from calibration.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class EvalTransform:
    """timm's evaluation transform: resize so that the crop keeps `crop_pct` of it, crop, scale to 0..1, normalise.

    Attributes:
        input_size: channels, height, width.
        mean, std: per channel, of pixels scaled to 0..1.
        crop_mode: timm's name (`center`, `squash` or `border`).
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    crop_mode: str = "center"

    def build(self, normalize: bool = True) -> Callable[[Image], Tensor]:
        """PIL RGB -> float32 [3, H, W]; not normalised: the pixels that these are made of, uint8 [3, H, W]."""
        ensure_torchvision()
        from timm.data import create_transform

        return create_transform(
            input_size=self.input_size,
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            normalize=normalize,
        )

    def digest(self) -> str:
        """Hex sha256 of the settings: equal transforms have equal digests."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


#: What Pillow's decoders raise on damaged files: AVIF and BLP a RuntimeError, IM a TypeError (found by damaging 1,500
#: files of each of 20 formats at random); LookupError and struct.error because `Image.open` itself expects them.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, TypeError, LookupError, struct.error)


def read_image(source: Path | BinaryIO) -> Image:
    """Any image that Pillow reads -> upright 8-bit RGB.

    EXIF orientation is applied; transparency is laid on white; 16-bit, 32-bit and float grey are scaled, not clipped;
    of an animation the first frame is taken.

    Raises:
        DataError: not an image, broken, truncated, empty, or too large to be one in earnest.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = getattr(source, "name", "this file")  # bytes in memory have none
    try:
        with Image.open(source) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            return to_rgb(upright)
    except UnidentifiedImageError:
        raise DataError(f"{name} is not an image that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large: {error}") from None
    except _DECODE_ERRORS as error:
        raise DataError(f"{name} cannot be decoded: {error}") from None


class _Named(io.BytesIO):
    """Bytes of an image with a name for messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def read_encoded(content: bytes, name: str) -> Image:
    """`read_image` of the bytes of a file that is called `name`.

    Raises:
        DataError: as `read_image`.
    """
    return read_image(_Named(content, name))


def to_rgb(image: Image) -> Image:
    """Any mode of Pillow -> 8-bit RGB, transparency on white, deep grey scaled by its range.

    Raises:
        ValueError: a float image with a value that is not finite.
    """
    from PIL import Image

    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        return _grey_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image) -> Image:
    """Integers over 65535, floats over 1; either over its own range when it leaves that."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite numbers")
    low, high = 0.0, (1.0 if image.mode == "F" else 65535.0)
    if values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, 1e-12) * 255.0
    if isinstance(clear := image.info.get("transparency"), int):
        scaled[values == clear] = 255.0  # white
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")
