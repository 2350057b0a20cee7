"""One yes or no for each image in, a short text for a JSON file out, and back without loss.

Eight images are one byte, written as base64; `zlib:` stands before it where zlib makes the bytes fewer.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

ZLIB = "zlib:"


def pack(flags: NDArray[np.bool_]) -> str:
    """[N] -> text."""
    plain = np.packbits(flags).tobytes()
    short = zlib.compress(plain, 9)
    if len(short) < len(plain):
        return ZLIB + base64.b64encode(short).decode()
    return base64.b64encode(plain).decode()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    """Text -> [n].

    Raises:
        ValueError: no such text, or not of `n` images.
    """
    size = (n + 7) // 8
    try:
        packed = base64.b64decode(text.removeprefix(ZLIB), validate=True)
        if text.startswith(ZLIB):
            packed = zlib.decompressobj().decompress(
                packed, size + 1
            )  # a longer one is wrong, not a reason to unpack it
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"{text[:20]!r} holds no bits ({error})") from None
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if len(packed) != size or bits[n:].any():
        raise ValueError(f"{text[:20]!r} holds {len(packed)} bytes, not the bits of {n} images")
    return bits[:n].astype(bool)
