"""A gate's result in, JSON out: every finding with all its figures; what was not measured is null."""

from __future__ import annotations

import json

from pipeline.reports.codec import to_dict
from pipeline.reports.gate_record import GateResult

SCHEMA_VERSION = 1


def render(result: GateResult, exit_code: int) -> str:
    """The text of the file."""
    data = to_dict(result)
    for cell, record in zip(data["cells"], result.cells, strict=True):
        cell["verdict"] = record.verdict
    body = {"schema_version": SCHEMA_VERSION, "verdict": result.verdict, "exit_code": exit_code, **data}
    return json.dumps(body, indent=2, allow_nan=False) + "\n"
