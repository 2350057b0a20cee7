"""What a reader is told of the classes that weights and data name."""

from __future__ import annotations

import pytest

from pipeline.training.subject import classes_told


@pytest.mark.parametrize(
    ("theirs", "ours", "head_replaced", "told"),
    [
        (("a", "b"), ("a", "b"), False, []),
        (("b", "a"), ("a", "b"), True, ["classes in another order: b, a in the weights, a, b in the data"]),
        (
            ("0", "1", "2"),
            ("2", "shoe"),
            True,
            ["classes: 3 in the weights, 2 in the data, 1 in both; only in the weights: 0, 1; only in the data: shoe"],
        ),
        (
            ("a", "b"),
            ("a",),
            True,
            ["classes: 2 in the weights, 1 in the data, 1 in both; only in the weights: b"],
        ),
        (None, ("a", "b"), True, []),
        (
            None,
            tuple("abcdefg"),
            False,
            ["the weights name no classes: their 7 outputs are taken for a, b, c, d, e and 2 more, in order"],
        ),
    ],
)
def test_differences_are_named(
    theirs: tuple[str, ...] | None, ours: tuple[str, ...], head_replaced: bool, told: list[str]
) -> None:
    assert classes_told(theirs, ours, head_replaced) == told
