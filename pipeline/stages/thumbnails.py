"""An image in, a small picture of it as a data: URL out, for records that must stand alone."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 96  # pixels of the longer side
QUALITY = 80  # of JPEG: about 3 kB a picture


def thumbnail(image: Image) -> str:
    """`data:image/jpeg;base64,...` of at most SIDE pixels; a smaller image keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
