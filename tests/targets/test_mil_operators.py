"""Each operator of the MIL reference: saved as a package of its own, run, compared with an independent reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_encodings import ENCODINGS
from mil_layouts import LAYOUTS
from mil_pointwise import ACTIVATIONS, ELEMENTWISE
from mil_products import PRODUCTS, pads
from mil_programs import Draw, OneOperator, given_in, given_out, inferred, save_package, save_program
from mil_resizing import RESIZING
from mil_statistics import STATISTICS

from targets.coreml.interpreter.arithmetic import FP16, FP16_ACCUMULATE, FP32
from targets.coreml.interpreter.operators import OPERATORS
from targets.coreml.interpreter.program import load_program
from targets.types import TargetError

DRAWS = {**ELEMENTWISE, **ACTIVATIONS, **PRODUCTS, **STATISTICS, **LAYOUTS, **RESIZING, **ENCODINGS}

#: Three draws of each, so that integers come up where an operator takes them; more where attributes have more turns.
SEEDS = dict.fromkeys(DRAWS, 3) | {
    "cast": 11,
    "gelu": 4,
    "prelu": 4,
    "matmul": 9,
    "conv": 20,
    "conv_transpose": 10,
    "einsum": 6,
    "scaled_dot_product_attention": 6,
    "batch_norm": 4,
    "layer_norm": 10,
    "instance_norm": 4,
    "avg_pool": 20,
    "max_pool": 20,
    "reduce_sum": 8,
    "reduce_max": 8,
    "cumsum": 5,
    "topk": 5,
    "reshape": 5,
    "squeeze": 4,
    "split": 6,
    "pad": 12,
    "slice_by_index": 16,
    "gather": 8,
    "gather_nd": 6,
    "band_part": 4,
    "upsample_nearest_neighbor": 6,
    "upsample_bilinear": 10,
    "quantize": 8,
    "dequantize": 8,
    "constexpr_affine_dequantize": 6,
    "constexpr_lut_to_dense": 12,
    "constexpr_sparse_to_dense": 4,
    "constexpr_blockwise_shift_scale": 8,
}
CASES = [(operator, seed) for operator in DRAWS for seed in range(SEEDS[operator])]

#: Where coremltools computes no values of its own.
NO_SECOND_OPINION = {
    *("avg_pool", "max_pool", "batch_norm", "instance_norm", "conv", "conv_transpose", "silu", "gather_nd"),
    *("pixel_shuffle", "pixel_unshuffle", "one_hot"),
    *("upsample_bilinear", "upsample_nearest_neighbor"),
}
#: Its inference of an exclusive cumsum calls numpy.concatenate wrongly and raises a TypeError.
BROKEN_INFERENCE = {("cumsum", 2), ("cumsum", 4)}


def _run(case: OneOperator, path: Path, rounding: Any) -> dict[str, np.ndarray]:
    save_package(case, path)
    return load_program(path).predict(given_in(case), rounding)


def _assert_equal(given: np.ndarray, expected: np.ndarray, rtol: float | None) -> None:
    assert given.shape == expected.shape
    if rtol is None:
        np.testing.assert_array_equal(given, expected)
    else:  # a sum that nearly cancels is as exact as its terms
        np.testing.assert_allclose(given, expected, rtol=rtol, atol=rtol / 10 * np.abs(expected).max())


@pytest.mark.parametrize(("operator", "seed"), CASES)
def test_operator_gives_what_its_documentation_says(operator: str, seed: int, tmp_path: Path) -> None:
    case = DRAWS[operator](Draw(operator, seed))

    given = _run(case, tmp_path / "one.mlpackage", FP32)

    expected = given_out(case)
    assert set(given) == set(expected)
    for name, array in expected.items():
        kept_as = np.float32 if array.dtype == np.float16 else array.dtype  # half precision is held in single
        assert given[name].dtype == kept_as
        _assert_equal(given[name], array, case.rtol)


@pytest.mark.parametrize(("operator", "seed"), CASES)
def test_half_precision_result_is_rounded_once(operator: str, seed: int, tmp_path: Path) -> None:
    """Inputs and attributes in half precision. Exact operators give the single precision result rounded to half, the
    others a neighbour of it at most: rounding inside of an operator would show.
    """
    case = DRAWS[operator](Draw(operator, seed, np.float16))

    given = _run(case, tmp_path / "one.mlpackage", FP16)

    for name, expected in given_out(case).items():
        if expected.dtype != np.float16:
            _assert_equal(given[name], expected, case.rtol)
            continue
        halves = given[name].astype(np.float16)
        np.testing.assert_array_equal(halves.astype(np.float32), given[name])
        if case.rtol is None:
            np.testing.assert_array_equal(halves, expected)
        else:
            distance = np.abs(halves.astype(np.float64) - expected.astype(np.float64))
            spacing = np.spacing(np.abs(expected)).astype(np.float64)
            cancelled = case.rtol / 10 * np.abs(expected).astype(np.float64).max()
            assert (distance <= spacing + cancelled).all(), (distance / spacing).max()


@pytest.mark.parametrize(("operator", "seed"), [c for c in CASES if c[0] in PRODUCTS or c[0] in STATISTICS])
def test_sums_in_half_precision_stay_near(operator: str, seed: int, tmp_path: Path) -> None:
    """Under the third rounding model: the same operator, as inexact as some hundred roundings to half make it."""
    case = DRAWS[operator](Draw(operator, seed, np.float16))

    given = _run(case, tmp_path / "one.mlpackage", FP16_ACCUMULATE)

    for name, expected in given_out(case).items():
        if expected.dtype == np.float16:
            scale = np.abs(expected).astype(np.float64).max()
            np.testing.assert_allclose(given[name], expected, rtol=0.02, atol=0.02 * scale)
        else:
            np.testing.assert_array_equal(given[name], expected)


@pytest.mark.parametrize("operator", sorted(set(DRAWS) - NO_SECOND_OPINION))
def test_reference_agrees_with_the_values_that_coremltools_infers(operator: str) -> None:
    compared = 0
    for seed in range(SEEDS[operator]):
        if (operator, seed) in BROKEN_INFERENCE:
            continue
        case = DRAWS[operator](Draw(operator, seed))
        for value, expected in zip(inferred(case), case.expected, strict=True):
            if value is not None:
                _assert_equal(value, expected, None if case.rtol is None else 10 * case.rtol)
                compared += 1
    assert compared >= 1


@pytest.mark.parametrize("operator", sorted(NO_SECOND_OPINION))
def test_coremltools_infers_no_values_where_the_reference_stands_alone(operator: str) -> None:
    assert inferred(DRAWS[operator](Draw(operator, 0))) == [None]


def _image_last(x: np.ndarray) -> np.ndarray:
    """[..., H, W] -> [1, H, W, C], all leading dimensions as channels."""
    return np.moveaxis(x.reshape(1, -1, *x.shape[-2:]), 1, -1)


#: As the documentation of upsample_bilinear has it; by turns of the draws.
@pytest.mark.parametrize(
    ("turns", "align_corners", "half_pixel_centers"),
    [((0, 2, 5, 7), True, False), ((1, 4, 6, 9), False, True), ((3, 8), False, False)],
)
def test_resizing_reference_agrees_with_tensorflow(
    turns: tuple[int, ...], align_corners: bool, half_pixel_centers: bool
) -> None:
    import tensorflow as tf

    for seed in turns:
        case = DRAWS["upsample_bilinear"](Draw("upsample_bilinear", seed))
        given = tf.raw_ops.ResizeBilinear(
            images=_image_last(case.inputs["x"]),
            size=case.expected[0].shape[-2:],
            align_corners=align_corners,
            half_pixel_centers=half_pixel_centers,
        )
        _assert_equal(given.numpy(), _image_last(case.expected[0]), 1e-5)


def test_same_padding_is_that_of_tensorflow() -> None:
    import tensorflow as tf

    random = np.random.default_rng(0)
    for _ in range(40):
        size, kernel, stride = (int(n) for n in random.integers(1, [12, 6, 5]))
        x, taps = random.normal(size=(1, size, 2)), random.normal(size=(kernel, 2, 3))
        ((before, after),) = pads("same", (), [size], [kernel], [stride])
        padded = np.pad(x, [(0, 0), (before, after), (0, 0)])
        given = tf.nn.conv1d(padded, taps, stride, "VALID")
        np.testing.assert_allclose(given, tf.nn.conv1d(x, taps, stride, "SAME"), rtol=1e-9)


def test_two_hundred_programs_and_every_operator_twice() -> None:
    assert len(CASES) >= 200
    assert min(SEEDS.values()) >= 2


def test_every_operator_of_the_reference_is_drawn() -> None:
    # classify names classes: its result is no array. It is tested with the package that has it.
    assert set(OPERATORS) - set(DRAWS) == {"classify"}


def _lstm(x: Any) -> list[Any]:
    from coremltools.converters.mil.mil import Builder as mb

    size, zeros = 2, np.zeros((1, 2), np.float32)
    weights = {"weight_ih": np.ones((4 * size, 3), np.float32), "weight_hh": np.ones((4 * size, size), np.float32)}
    return list(mb.lstm(x=mb.expand_dims(x=x, axes=[1]), initial_h=zeros, initial_c=zeros, **weights))


def _non_maximum_suppression(x: Any) -> list[Any]:
    from coremltools.converters.mil.mil import Builder as mb

    boxes, scores = mb.reshape(x=x, shape=[1, 4, 3]), np.ones((1, 2, 3), np.float32)
    return list(mb.non_maximum_suppression(boxes=boxes, scores=scores, iou_threshold=np.float32(0.5), max_boxes=2))


def _random_normal(x: Any) -> list[Any]:
    from coremltools.converters.mil.mil import Builder as mb

    return [mb.add(x=x, y=mb.random_normal(shape=[4, 3]))]


@pytest.mark.parametrize("build", [_lstm, _non_maximum_suppression, _random_normal], ids=lambda f: f.__name__[1:])
def test_unknown_operator_stops_by_name(build: Any, tmp_path: Path) -> None:
    import coremltools as ct

    path = tmp_path / "unknown.mlpackage"
    save_program(build, {"x": np.zeros((4, 3), np.float32)}, path, ct.target.iOS17, 8)

    with pytest.raises(TargetError, match=rf"unknown\.mlpackage.*{build.__name__[1:]}") as stopped:
        load_program(path)

    assert stopped.value.stage == "load"
