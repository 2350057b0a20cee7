"""Wording that every part of the program shares: lists cut short, plurals, and the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def first(names: Sequence[str], limit: int) -> str:
    """At most `limit` names, and how many more there are: "a, b and 3 more"."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, noun: str) -> str:
    """ "1 model", "3 models"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def suggest(wrong: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
