"""The old and the new baseline in, a table with both side by side out, for who reviews the change."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pipeline.reports import values as v
from pipeline.reports.baseline_record import CellFacts, RunFacts
from pipeline.reports.table import Table
from pipeline.reports.values import NONE_HERE, NOT_MEASURED, Value

Column = Callable[[CellFacts], str | None]


def table(old: RunFacts | None, new: RunFacts) -> Table:
    """One row a cell; "old → new" where a figure moves, one figure where it does not."""
    before = {cell.key: cell for cell in old.cells} if old else {}
    after = {cell.key: cell for cell in new.cells}
    rows = tuple(
        (v.words(key.label), *(_both(before.get(key), after.get(key), column) for column in COLUMNS.values()))
        for key in {**before, **after}
    )
    title = f"baseline of {new.model}: run {new.run_id}" + (f" in place of {old.run_id}" if old else "")
    return Table(title, ("cell", *COLUMNS), rows, notes=_notes(old, new))


def _top1(cell: CellFacts) -> str | None:
    return None if cell.scored is None else f"{cell.scored.top1} of {cell.scored.n}"


def _same(cell: CellFacts) -> str | None:
    return None if cell.scored is None else f"{cell.scored.same} of {cell.scored.n}"


def _size(cell: CellFacts) -> str | None:
    return None if cell.file is None else f"{cell.file.size_bytes / 1e6:.3f} MB"


def _undelegated(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.undelegated is None else str(cell.file.undelegated)


def _scales(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.scales_total is None else str(cell.file.scales_lost)


def _latency(cell: CellFacts) -> str | None:
    if cell.timing is None or cell.timing.to_control is None:
        return None
    return f"{statistics.median(cell.timing.to_control):.3f}×"


COLUMNS: dict[str, Column] = {
    "outcome": lambda cell: cell.outcome.status,
    "top-1": _top1,
    "agreement": _same,
    "size": _size,
    "undelegated": _undelegated,
    "scales lost": _scales,
    "× MobileNetV2": _latency,
}


def _both(old: CellFacts | None, new: CellFacts | None, column: Column) -> Value:
    texts = [None if cell is None else column(cell) or "not measured" for cell in (old, new)]
    before, after = texts
    if before is None or before == after:  # a first baseline, a new cell, or no change
        return NONE_HERE if after is None else NOT_MEASURED if after == "not measured" else Value(after)
    return Value(f"{before}\n→ {after or 'gone'}")


def _notes(old: RunFacts | None, new: RunFacts) -> tuple[str, ...]:
    if old is None:
        return ()
    notes = []
    if old.images != new.images or old.num_classes != new.num_classes:
        notes.append(f"other images: {old.images.name}, {old.images.n_val} → {new.images.name}, {new.images.n_val}")
    if old.weights != new.weights:
        notes.append(f"other float weights: {old.weights.sha256 or 'no file'} → {new.weights.sha256 or 'no file'}")
    return tuple(notes)
