"""Wording that every part of the program shares: lists cut short, and plurals."""

from __future__ import annotations

from collections.abc import Sequence


def first(names: Sequence[str], limit: int) -> str:
    """At most `limit` names, and how many more there are: "a, b and 3 more"."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, noun: str) -> str:
    """ "1 model", "3 models"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
