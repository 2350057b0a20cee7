"""The settings in force in, a table with where each value comes from out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reports import values as v
from pipeline.reports.table import Table
from pipeline.reports.values import Value


@dataclass(frozen=True)
class InForce:
    """One value of one rule.

    Attributes:
        says: what the value means.
    """

    rule: str
    key: str
    value: float | str | None
    unit: str
    source: str
    says: str


def table(title: str, settings: Sequence[InForce], notes: tuple[str, ...] = ()) -> Table:
    """One row a rule and key."""
    rows = tuple(
        (v.words(s.rule), v.words(s.key), Value(_text(s), "figure"), v.words(s.source), v.words(s.says))
        for s in settings
    )
    return Table(title, ("rule", "key", "value", "from", "meaning"), rows, 2, notes)


def _text(setting: InForce) -> str:
    value = setting.value
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g} {setting.unit}".rstrip()
