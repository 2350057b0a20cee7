"""Which images are golden, and what their answers are held to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax

from pipeline.app.golden import TOLERANCE, Golden, pick, replay, softmax
from pipeline.errors import CellsFailedError
from pipeline.run.logits import StageLogits
from targets.boundary import Boundary

LOGITS = np.array([[9, 0, 0], [2, 1, 0], [0, 8, 0], [0, 9, 0], [0, 0, 3], [5, 0, 0]], np.float32)
LABELS = np.array([0, 0, 1, 1, 2, 2])  # the last answer is wrong


def stored() -> StageLogits:
    return StageLogits(LABELS, np.arange(6), "digest", {"qdq": LOGITS})


def test_the_surest_right_answer_of_each_class_comes_first_then_the_surest_others() -> None:
    assert pick(stored(), "qdq", 3) == (0, 3, 4)
    assert pick(stored(), "qdq", 5) == (0, 3, 4, 2, 1)
    assert set(pick(stored(), "qdq", 9)) == set(range(6))  # no more images than there are


def test_softmax_is_scipys() -> None:
    logits = np.random.default_rng(0).normal(0, 40, (4, 7)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits.astype(np.float64), axis=1), rtol=1e-9)


def golden() -> Golden:
    return Golden((0, 3), np.zeros((2, 4, 4, 3), np.uint8), LOGITS[[0, 3]], ("a", "b", "c"), (0, 1))


def test_a_file_that_answers_otherwise_is_named_with_runtime_and_image() -> None:
    right = softmax(LOGITS[[0, 3]])
    golden().check({"x.tflite": {"litert": right}})
    with pytest.raises(CellsFailedError, match=r"x\.tflite in tensorflow says a to 2\.png, the program b"):
        golden().check({"x.tflite": {"litert": right, "tensorflow": right[[0, 0]]}})


def test_the_file_says_what_each_runtime_gave_and_how_far_they_may_differ() -> None:
    one = softmax(LOGITS[[0, 3]])
    other = one + np.array([[-0.03, 0.03, 0]])
    told = golden().as_json({"x.tflite": {"litert": one, "tensorflow": other}, "x.pte": {}})
    assert told["tolerance"] == pytest.approx(0.06)
    assert told["runtimes"] == {"x.tflite": "litert"}
    images = told["images"]
    assert isinstance(images, list)
    assert [image["label"] for image in images] == ["a", "b"]
    assert images[1]["files"]["x.tflite"]["top1"] == "b"
    assert images[1]["files"]["x.tflite"]["probabilities"] == pytest.approx(one[1], abs=1e-6)
    assert golden().as_json({"x.tflite": {"litert": one}})["tolerance"] == TOLERANCE


def test_a_file_of_logits_and_one_of_probabilities_replay_alike() -> None:
    class Session:
        def __init__(self, given: np.ndarray):
            self.given = given

        def infer(self, images: np.ndarray) -> np.ndarray:
            assert images.dtype == np.uint8
            return self.given

    pixels = np.zeros((6, 4, 4, 3), np.uint8)
    logits = replay(Session(LOGITS), Boundary.image((4, 4), "both"), pixels)  # type: ignore[arg-type]
    given = softmax(LOGITS).astype(np.float32)
    probabilities = replay(Session(given), Boundary.image((4, 4), "probabilities"), pixels)  # type: ignore[arg-type]
    np.testing.assert_allclose(logits, probabilities, atol=1e-6)
