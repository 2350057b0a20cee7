"""Trained scales are looked up in a file's by value; what is not there is named."""

from __future__ import annotations

from targets.match import match_scales
from targets.types import QuantParams

TRAINED = {
    "fc.weight": QuantParams((0.01, 0.02, 0.03), (0, 0, 0)),
    "relu": QuantParams((0.05,), (-128,)),
    "add": QuantParams((0.05,), (3,)),
}


def test_all_are_found_in_any_order() -> None:
    match = match_scales(TRAINED, list(TRAINED.values())[::-1])
    assert (match.total, match.found, match.missing) == (3, 3, ())


def test_a_lost_tensor_is_named() -> None:
    match = match_scales(TRAINED, [TRAINED["add"], TRAINED["fc.weight"]])
    assert (match.found, match.missing) == (2, ("relu",))


def test_one_channel_that_differs_is_a_loss() -> None:
    changed = QuantParams((0.01, 0.02, 0.0301), (0, 0, 0))
    assert match_scales(TRAINED, [changed]).missing == tuple(TRAINED)
    swapped = QuantParams((0.02, 0.01, 0.03), (0, 0, 0))
    assert "fc.weight" in match_scales(TRAINED, [swapped]).missing


def test_per_tensor_is_not_per_channel() -> None:
    assert "fc.weight" in match_scales(TRAINED, [QuantParams((0.01,), (0,))]).missing


def test_a_zero_point_counts_up_to_the_uint8_offset() -> None:
    assert match_scales({"add": TRAINED["add"]}, [QuantParams((0.05,), (131,))]).found == 1
    assert match_scales({"add": TRAINED["add"]}, [QuantParams((0.05,), (4,))]).found == 0
    mixed = QuantParams((0.1, 0.1), (1, 130))  # one channel moved by the offset, the other not
    assert match_scales({"w": QuantParams((0.1, 0.1), (1, 2))}, [mixed]).found == 0


def test_symmetric_tensors_need_no_stored_zero_points() -> None:
    for stored in ((0, 0, 0), (0,), ()):
        assert match_scales({"w": TRAINED["fc.weight"]}, [QuantParams((0.01, 0.02, 0.03), stored)]).found == 1


def test_the_tolerance_is_relative() -> None:
    half = QuantParams((0.05 * (1 + 4e-4),), (3,))  # float16 keeps 11 bits
    assert match_scales({"add": TRAINED["add"]}, [half]).found == 0
    assert match_scales({"add": TRAINED["add"]}, [half], rtol=1e-3).found == 1


def test_an_empty_file_has_lost_everything() -> None:
    assert match_scales(TRAINED, []).missing == tuple(TRAINED)
    assert match_scales({}, list(TRAINED.values())).total == 0
