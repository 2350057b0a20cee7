"""The settings in force in, the text of an edge-t2t.toml that sets the same out, with where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class InForce:
    """One value of one rule.

    Attributes:
        value: None: not set.
        says: what the value means; empty for what every rule has.
    """

    rule: str
    key: str
    value: float | str | None
    unit: str
    source: str
    says: str


def render(table: str, settings: Sequence[InForce], rules: dict[str, str]) -> str:
    """One TOML table a rule, below `table` ("check.rules").

    Args:
        rules: what each rule looks at.
    """
    lines = []
    for rule, says in rules.items():
        lines += [f"[{table}.{rule}]  # {says}", *(_line(s) for s in settings if s.rule == rule), ""]
    return "\n".join(lines)


def _line(setting: InForce) -> str:
    comment = "; ".join(filter(None, (setting.source, " ".join(filter(None, (setting.unit, setting.says))))))
    if setting.value is None:
        return f"# {setting.key} is not set  # {comment}"
    return f"{setting.key} = {json.dumps(setting.value)}  # {comment}"  # TOML writes these as JSON does
