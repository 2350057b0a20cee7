"""The search for few names, against every subset of small problems."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mixed.search import Names, fewest

ORDER = ["a", "b", "c", "d", "e", "f", "g", "h"]


class Judge:
    """Passes what holds all of `needed`; keeps what it was asked."""

    def __init__(self, *needed: str):
        self.needed, self.asked = set(needed), list[Names]()

    def __call__(self, names: Names) -> bool:
        self.asked.append(names)
        return self.needed <= names


@pytest.mark.parametrize("needed", [s for n in range(9) for s in itertools.combinations(ORDER, n)])
def test_just_what_is_needed_is_found_wherever_it_stands_in_the_order(needed: tuple[str, ...]) -> None:
    judge = Judge(*needed)
    assert fewest(frozenset(), ORDER, judge) == set(needed)
    assert len(judge.asked) == len(set(judge.asked))
    assert len(judge.asked) <= 6 + len(ORDER)


def test_nothing_is_asked_beyond_the_start_if_that_passes() -> None:
    judge = Judge()
    assert fewest(frozenset("x"), ORDER, judge) == {"x"}
    assert judge.asked == [{"x"}]


def test_names_of_the_start_are_neither_added_twice_nor_given_back() -> None:
    judge = Judge("c")
    assert fewest(frozenset("ab"), ORDER, judge) == {"a", "b", "c"}
    assert all({"a", "b"} <= names for names in judge.asked)


def test_none_if_all_of_them_do_not_pass() -> None:
    assert fewest(frozenset(), ORDER, Judge("z")) is None
    assert fewest(frozenset(), [], Judge("z")) is None


def test_one_very_useful_name_takes_few_questions() -> None:
    names = [str(i) for i in range(64)]
    judge = Judge("0")
    assert fewest(frozenset(), names, judge) == {"0"}
    assert len(judge.asked) == 2


@given(costs=st.lists(st.sampled_from([0, 1, 2, 5]), min_size=8, max_size=8), budget=st.integers(0, 40))
def test_under_a_budget_no_name_can_be_given_back(costs: list[int], budget: int) -> None:
    cost = dict(zip(ORDER, costs, strict=True))

    def passes(names: Names) -> bool:
        return sum(cost[n] for n in ORDER if n not in names) <= budget

    found = fewest(frozenset(), sorted(ORDER, key=lambda n: -cost[n]), passes)
    assert found is not None
    assert passes(found)
    assert not any(passes(found - {name}) for name in found)
    smallest = next(n for n in range(9) if any(passes(frozenset(s)) for s in itertools.combinations(ORDER, n)))
    assert len(found) == smallest  # ranked by what they cost, and costs add up: then it is the least of all


@given(passing=st.sets(st.frozensets(st.sampled_from(ORDER))))
def test_what_is_found_passed_even_where_more_names_hurt(passing: set[Names]) -> None:
    verdicts = passing | {frozenset(ORDER)}
    assert fewest(frozenset(), ORDER, verdicts.__contains__) in verdicts
