"""Normalised images of the kinds that break a reformulated LayerNorm or softmax: [N, 3, side, side] by name."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from alive import alive_images
from torch import Tensor

MEAN, STD = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
KINDS = ("random", "natural", "flat", "near flat", "white background", "nearly white")


@cache
def pictures(kind: str, side: int = 224) -> Tensor:
    random = np.random.default_rng(0)
    colours = random.random((3, 3, 1, 1))
    if kind == "random":
        return alive_images(2, side)
    if kind == "natural":
        return _normalised(_photographs(side))
    if kind == "flat":
        return _normalised(np.broadcast_to(colours, (3, 3, side, side)))
    if kind == "near flat":  # contrasts of a grey level, of a tenth and of a hundredth of one
        contrast = np.array([1, 0.1, 0.01]).reshape(3, 1, 1, 1) / 255
        return _normalised(0.9 * colours + contrast * random.random((3, 3, side, side)))
    white = np.ones((3, 3, side, side))
    if kind == "white background":
        part = slice(side // 8, side // 2)
        white[:2, :, part, part] = random.random((2, 3, 1, 1)) * random.random((1, side // 2 - side // 8))
        return _normalised(white)
    if kind == "nearly white":
        return _normalised(white - (random.random(white.shape) < 0.1) / 255)
    raise KeyError(kind)


def _photographs(side: int) -> np.ndarray:
    """Two photographs that ship inside scikit-learn, and parts of them."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    images = []
    for pixels in load_sample_images().images:
        whole = Image.fromarray(pixels)
        images += [whole.resize((side, side)), whole.crop((200, 100, 200 + 224, 100 + 224)).resize((side, side))]
    return np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2) / 255


def _normalised(pixels: np.ndarray) -> Tensor:
    return (torch.from_numpy(np.ascontiguousarray(pixels)).float() - MEAN) / STD
