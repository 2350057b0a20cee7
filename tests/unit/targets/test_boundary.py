"""From pixels to what a file takes, and from what it gives to scores."""

import numpy as np
import pytest
from PIL import Image

from calibration.preprocess import EvalTransform
from pipeline.metrics.drift import aligned, kl_divergence
from targets.boundary import Boundary
from targets.codec import from_dict, to_dict

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TENSOR, IMAGE = Boundary.tensor((32, 48), MEAN, STD), Boundary.image((32, 48), "probabilities")


@pytest.mark.parametrize(("interpolation", "crop_pct"), [("bicubic", 0.9), ("bilinear", 1.0)])
def test_pixels_and_normalised_images_are_the_same_picture_to_the_last_bit(interpolation: str, crop_pct: float) -> None:
    transform = EvalTransform((3, 32, 48), MEAN, STD, crop_pct, interpolation)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 77, 3), np.uint8))
    pixels = transform.build(normalize=False)(photo).numpy().transpose(1, 2, 0)[None]
    assert np.array_equal(TENSOR.feed(pixels), transform.build()(photo).numpy()[None])
    assert np.array_equal(IMAGE.feed(pixels), pixels)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 3, 32, 48), np.uint8), np.zeros((1, 48, 32, 3), np.uint8), np.zeros((1, 32, 48, 3), np.float32)],
)
def test_other_pixels_are_refused(wrong: np.ndarray) -> None:
    for boundary in (TENSOR, IMAGE):
        with pytest.raises(ValueError, match=r"pixels are uint8 \[N, 32, 48, 3\], not"):
            boundary.feed(wrong)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="3 of each"):
        Boundary("NCHW", "float32", (32, 32), "logits")
    with pytest.raises(ValueError, match="0 of each"):
        Boundary("NHWC", "uint8", (32, 32), "both", MEAN, STD)
    with pytest.raises(ValueError, match="at least 1"):
        Boundary.image((0, 32), "both")


def test_it_is_stored_and_read_back() -> None:
    for boundary in (TENSOR, IMAGE):
        assert from_dict(Boundary, to_dict(boundary)) == boundary


def test_logits_come_back_from_probabilities_up_to_a_constant() -> None:
    logits = np.random.default_rng(1).normal(0, 8, (5, 10)).astype(np.float32)
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    found = IMAGE.scores(probabilities)
    assert np.abs(aligned(found, logits) - logits).max() < 1e-5
    noisy = logits + np.random.default_rng(2).normal(0, 0.1, logits.shape)
    assert np.allclose(kl_divergence(noisy, aligned(found, noisy)), kl_divergence(noisy, logits), atol=1e-6)
    assert np.array_equal(aligned(found, noisy).argmax(axis=1), logits.argmax(axis=1))


def test_a_probability_of_zero_is_a_very_small_one_and_none_stays_none() -> None:
    certain = IMAGE.scores(np.array([[1.0, 0.0], [np.nan, 0.0]], np.float32))
    assert certain[0].tolist() == pytest.approx([0.0, -87.336], abs=1e-3)
    assert np.isnan(certain[1, 0])
    both = np.array([[1.0, -2.0]], np.float32)
    assert Boundary.image((8, 8), "both").scores(both) is both
