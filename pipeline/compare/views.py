"""A comparison of two runs as a table, JSON, Markdown or one self-contained HTML page."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from pipeline.compare.records import Comparison, PairedImages
from pipeline.compare.tables import all_tables
from pipeline.metrics.accuracy import CONFIDENCE, Accuracy, wilson_percent
from pipeline.records.codec import to_dict
from pipeline.report import markdown as layout
from pipeline.report.page import environment
from pipeline.report.tables.printed import WIDTH, console, table_renderable
from pipeline.report.values import printable


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured Markdown."""
    head = ["# Two runs side by side", "", "| | run | model | data | images scored |", "|---|---|---|---|---:|"]
    for side, run in (("A", comparison.a), ("B", comparison.b)):
        words = (run.run_id, run.model, run.data, str(run.images))
        head.append(f"| {side} | {' | '.join(map(layout.escaped, words))} |")
    notes = [f"- {layout.escaped(note)}" for note in comparison.notes]
    return "\n".join([*head, "", *notes, "", *map(layout.table_lines, all_tables(comparison))])


def html(comparison: Comparison) -> str:
    """One page that opens offline, light and dark. All text is escaped by the template engine."""
    template = environment().get_template("compare.html.j2")
    return template.render(comparison=comparison, tables=all_tables(comparison))


SCHEMA_VERSION = 1


def as_json(comparison: Comparison) -> str:
    """Intervals have 95% confidence; drops are in percentage points from A to B."""
    data = to_dict(comparison)
    for kept, record in [*_zip(data["stages"], comparison.stages), *_zip(data["cells"], comparison.cells)]:
        if record.paired is not None:
            kept["paired"]["statistics"] = _statistics(record.paired)
        for side in ("a", "b"):
            half = getattr(record, side)
            accuracy = half if isinstance(half, Accuracy) or half is None else half.accuracy
            if accuracy is not None:
                counts = kept[side] if half is accuracy else kept[side]["accuracy"]
                counts["top1_percent"] = accuracy.top1_percent
                counts["top1_interval_percent"] = list(wilson_percent(accuracy.top1, accuracy.n))
    return json.dumps({"schema_version": SCHEMA_VERSION, "confidence": CONFIDENCE, **data}, indent=2) + "\n"


def _zip(kept: list[dict[str, Any]], records: tuple[Any, ...]) -> list[tuple[dict[str, Any], Any]]:
    return list(zip(kept, records, strict=True))


def _statistics(paired: PairedImages) -> dict[str, object]:
    change = paired.change
    return {
        "drop_pp": change.drop_pp,
        "drop_interval_pp": list(change.interval_pp()),
        "mcnemar_p": change.p_value,
        "smallest_detectable_drop_pp": change.detectable_pp(),
        "same_class_percent": paired.same_class.percent,
    }


def show(comparison: Comparison) -> None:
    """Print on stdout; a narrow terminal wraps the lines of a table, its columns stay whole."""
    console().print(_renderable(comparison))


def as_text(comparison: Comparison) -> str:
    """The same as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=WIDTH, color_system=None, force_terminal=False).print(_renderable(comparison))
    return buffer.getvalue()


def _renderable(comparison: Comparison) -> Group:
    lines = [
        f"{side}: {run.run_id}, {run.model}, {run.data}, {run.images} images scored"
        for side, run in (("A", comparison.a), ("B", comparison.b))
    ]
    head = "\n".join([*lines, *comparison.notes])
    return Group(Text(printable(head)), *map(table_renderable, all_tables(comparison)))
