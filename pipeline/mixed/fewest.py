"""Names in the order of their worth and a judge in, a small set that passes out: by doubling and halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Names = frozenset[str]


def fewest(start: Names, order: Sequence[str], passes: Callable[[Names], bool]) -> Names | None:
    """The shortest beginning of `order` that passes together with `start`, less every name that can be given back.

    If more names never hurt, no name of `order` in the result can be given back alone. (The least of all sets would
    take a judgement of each of 2^n.) Where more names do hurt now and then, the result still passed.

    Args:
        order: the most useful first; names of `start` are passed over.
        passes: asked for about 2 log2(k) + k sets, k names being found; never twice for the same set.

    Returns:
        None if `start` with all of `order` does not pass.
    """
    rest = [name for name in order if name not in start]
    verdicts: dict[Names, bool] = {}

    def ok(names: Names) -> bool:
        if names not in verdicts:
            verdicts[names] = passes(names)
        return verdicts[names]

    def first(count: int) -> Names:
        return start | frozenset(rest[:count])

    low, high = -1, 0  # the longest beginning known to fail, the shortest known to pass
    while not ok(first(high)):
        if high == len(rest):
            return None
        low, high = high, min(len(rest), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ok(first(middle)) else (middle, high)
    found = first(high)
    for name in reversed(rest[: max(0, high - 1)]):  # without the last one it failed just now
        if ok(found - {name}):
            found -= {name}
    return found
