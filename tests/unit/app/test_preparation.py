"""preprocessing.json says enough to prepare a photo as this program does."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from prepare_photo import prepare

from pipeline.app.preparation import Preparation
from pipeline.config import INTERPOLATION_NAMES
from pipeline.errors import UsageError
from pipeline.models.build import T2T_CFG, ModelConfig
from pipeline.training.subject import eval_transform

CONFIG = ModelConfig("mobilenet_v2", 10, (3, 96, 96), **{**T2T_CFG, "crop_pct": 0.875})
#: Height and width: landscape, portrait, square, smaller than the input, odd sides, one that
#: needs no resizing, and one so tall that Pillow goes along y first.
SIZES = [(240, 321), (333, 200), (150, 150), (41, 60), (109, 173), (700, 150)]


def photo(height: int, width: int) -> np.ndarray:
    """Edges, gradients and noise: what a wrong filter or offset shows in."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    stripes = ((x // 7 + y // 5) % 2) * 255
    slope = x / width * 255
    noise = rng.integers(0, 256, (height, width))
    return np.stack([stripes, slope, noise], axis=2).astype(np.uint8)


def ours(pixels: np.ndarray, config: ModelConfig) -> np.ndarray:
    made = eval_transform(config).build(normalize=False)(Image.fromarray(pixels))
    return np.asarray(made).transpose(1, 2, 0)


@pytest.mark.parametrize("interpolation", INTERPOLATION_NAMES)
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_the_steps_of_the_file_give_our_pixels(interpolation: str, crop_mode: str) -> None:
    config = dataclasses.replace(CONFIG, interpolation=interpolation, crop_mode=crop_mode)
    said = json.loads(json.dumps(Preparation.of(config).as_json()))
    for size in SIZES:
        pixels = photo(*size)
        given, wanted = prepare(pixels, said).astype(int), ours(pixels, config).astype(int)
        assert given.shape == (96, 96, 3)
        assert np.array_equal(given, wanted), size


def test_another_filter_or_crop_is_noticed() -> None:
    said = Preparation.of(CONFIG).as_json()
    pixels = photo(240, 321)
    for other in ({"interpolation": "bilinear"}, {"crop_pct": 0.9}):
        wanted = ours(pixels, dataclasses.replace(CONFIG, **other))
        assert np.abs(prepare(pixels, said).astype(int) - wanted.astype(int)).max() > 1


@pytest.mark.parametrize(
    "other", [{"crop_mode": "border"}, {"crop_pct": 1.15}, {"input_size": (3, 96, 128)}], ids=lambda o: next(iter(o))
)
def test_what_no_code_here_does_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="export-app writes code for a centre crop of a square"):
        Preparation.of(dataclasses.replace(CONFIG, **other))  # type: ignore[arg-type]
