"""The same tensor in another layout is found by its scale and zero point, and its SQNR is that by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.metrics.tensor_match import Int8Tensor, Power, compare, find

RNG = np.random.default_rng(0)
OURS = Int8Tensor(0.5, 3, RNG.integers(-128, 128, (1, 6, 4, 5), dtype=np.int8))


def test_a_channels_last_tensor_is_found_among_others() -> None:
    last = Int8Tensor(0.5, 3, OURS.values.transpose(0, 2, 3, 1).copy())
    other_scale = Int8Tensor(0.51, 3, OURS.values)
    other_point = Int8Tensor(0.5, 4, OURS.values)
    other_size = Int8Tensor(0.5, 3, OURS.values[:, :5])
    noise = Int8Tensor(0.5, 3, RNG.integers(-128, 128, (1, 4, 5, 6), dtype=np.int8))
    place = find(OURS, [other_scale, other_point, other_size, noise, last], rtol=1e-6)
    assert place is not None
    assert place.number == 4
    assert compare(OURS, last, place.axes).noise == 0
    assert find(OURS, [other_scale, other_point, other_size], rtol=1e-6) is None


@given(
    values=arrays(np.int8, array_shapes(max_dims=4, max_side=4)),
    axes=st.permutations(range(4)),
    scale=st.floats(1e-6, 1e3),
    zero_point=st.integers(-128, 127),
)
def test_a_tensor_is_found_in_every_order_of_its_axes(
    values: np.ndarray, axes: list[int], scale: float, zero_point: int
) -> None:
    ours = Int8Tensor(scale, zero_point, values)
    other = Int8Tensor(scale, zero_point, values.transpose([a for a in axes if a < values.ndim]).copy())
    place = find(ours, [Int8Tensor(2 * scale, zero_point, values), other], rtol=1e-6)
    assert place is not None
    assert place.number == 1
    assert compare(ours, other, place.axes).noise == 0


def test_joined_axes_are_found() -> None:
    joined = Int8Tensor(0.5, 3, OURS.values.transpose(0, 2, 3, 1).reshape(1, 20, 6).copy())
    tokens = Int8Tensor(0.5, 3, OURS.values.reshape(1, 6, 20))
    place = find(tokens, [joined], rtol=1e-6)
    assert place is not None
    assert compare(tokens, joined, place.axes).noise == 0


def test_a_scale_rounded_to_half_precision_is_within_its_tolerance() -> None:
    rounded = Int8Tensor(float(np.float16(0.0123)), 3, OURS.values)
    ours = Int8Tensor(0.0123, 3, OURS.values)
    assert find(ours, [rounded], rtol=1e-6) is None
    assert find(ours, [rounded], rtol=1e-3) is not None


def test_sqnr_by_hand() -> None:
    ours = Int8Tensor(2.0, 1, np.array([1, 4, -2], np.int8))  # 0, 6, -6
    other = Int8Tensor(2.0, 1, np.array([2, 4, -2], np.int8))  # 2, 6, -6
    place = find(ours, [other], rtol=1e-6)
    assert place is not None
    assert compare(ours, other, place.axes).sqnr_db == pytest.approx(10 * math.log10(72 / 4))
    assert Power(0.0, 1.0).sqnr_db is None
    assert Power(1.0, 0.0).sqnr_db is None
    both = Power(4.0, 1.0) + Power(6.0, 0.0)
    assert both.sqnr_db == pytest.approx(10.0)
