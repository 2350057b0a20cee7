"""What a file takes and what it gives: pixels to its input, and its output to scores.

Every part that feeds a file asks its `Boundary`; nothing else knows layouts, dtypes or normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

#: What lies in the outputs of a file; of "both", sessions give the logits.
Gives = Literal["logits", "probabilities", "both"]


@dataclass(frozen=True)
class Boundary:
    """
    Attributes:
        layout: order of the axes: batch of one, height, width and channels.
        dtype: uint8: pixels of 0..255 as they are, normalised inside; float32: normalised with `mean` and `std`.
        size: height and width in pixels.
        mean, std: what has to be done before the file, one for each channel, of pixels in 0..1; empty if inside.
        colors: order of the channels.
    """

    layout: Literal["NHWC", "NCHW"]
    dtype: Literal["uint8", "float32"]
    size: tuple[int, int]
    gives: Gives
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    colors: Literal["RGB"] = "RGB"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size {self.size}: height and width are at least 1")
        wanted = 0 if self.dtype == "uint8" else len(self.colors)
        if not len(self.mean) == len(self.std) == wanted:
            raise ValueError(f"mean {self.mean} and std {self.std} for {self.dtype}: {wanted} of each")

    @classmethod
    def image(cls, size: tuple[int, int], gives: Gives) -> Boundary:
        """Of a file that takes a picture."""
        return cls("NHWC", "uint8", size, gives)

    @classmethod
    def tensor(cls, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> Boundary:
        """Of a file that takes what the network takes."""
        return cls("NCHW", "float32", size, "logits", mean, std)

    def feed(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, H, W, 3] -> what sessions of the file take, [N, ...].

        The floats are, to the last bit, those of torchvision's ToTensor and Normalize.

        Raises:
            ValueError: other pixels than these.
        """
        import numpy as np

        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.size, len(self.colors)):
            height, width = self.size
            raise ValueError(f"pixels are uint8 [N, {height}, {width}, 3], not {pixels.dtype} {list(pixels.shape)}")
        if self.dtype == "uint8":
            return pixels
        mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        normalised = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2) if self.layout == "NCHW" else normalised)

    def scores(self, given: np.ndarray) -> np.ndarray:
        """What a session gives, float32 [N, classes] -> logits; of probabilities, up to a constant for each image.

        A probability below the smallest normal float32 counts as that: log p is never below -87.4.
        """
        import numpy as np

        return np.log(np.maximum(given, np.finfo(np.float32).tiny)) if self.gives == "probabilities" else given
