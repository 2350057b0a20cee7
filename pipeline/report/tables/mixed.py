"""The table of a search for float layers: its trials and what came of them."""

from __future__ import annotations

from pipeline.records.mixed import CellDrop, MixedRecord, Trial
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.tables.table import Column, Columns, Table
from pipeline.report.values import Value
from targets.words import first

SHOWN = 3  # names in a row


def mixed_precision(run: RunRecord) -> Table | None:
    """None for a run in which no float layers were asked for after training."""
    return None if run.mixed is None else mixed_table(run.model, run.mixed)


def mixed_table(model: str, record: MixedRecord) -> Table:
    """A row for each program and file that was judged; those of the result are marked."""

    def layers(row: tuple[Trial, CellDrop]) -> str:
        taken = row[0].float_layers
        return _names(taken) + ("\n(the result)" if taken == record.float_layers else "")

    def within(row: tuple[Trial, CellDrop]) -> Value:
        if record.budget_pp is None:
            return v.NONE_HERE
        over = row[1].drop_pp - record.budget_pp
        return Value("yes" if row[1].drop_pp <= record.budget_pp else "no", "text", sort=over)

    columns: Columns[tuple[Trial, CellDrop]] = (
        Column("Float layers", layers),
        Column("Judged", lambda row: row[1].name),
        Column("Lost / gained", lambda row: _lost(row[1])),
        Column("Drop in points", lambda row: _drop(row[1])),
        Column("Smallest detectable", lambda row: _detectable(row[1])),
        Column("Size", lambda row: v.NONE_HERE if row[1].size_bytes is None else v.megabytes(row[1].size_bytes)),
        Column("Within budget", within),
    )
    rows = ((trial, cell) for trial in record.trials for cell in trial.cells)
    return Table.of(f"{model}: mixed precision", columns, rows, label_columns=2, notes=_notes(record))


def _lost(cell: CellDrop) -> Value:
    return Value(f"{cell.lost} / {cell.gained}\nn {cell.n}", sort=cell.lost - cell.gained)


def _drop(cell: CellDrop) -> Value:
    (low, high), drop = cell.paired.interval_pp(), cell.paired.drop_pp
    return Value(f"{v.signed(drop, 2)}\n{v.signed(low, 1)} to {v.signed(high, 1)}", sort=drop)


def _detectable(cell: CellDrop) -> Value:
    smallest = cell.paired.detectable_pp()
    return Value("none", "text") if smallest is None else Value(f"{smallest:.2f}", sort=smallest)


def _names(layers: tuple[str, ...]) -> str:
    """ "none", "3: a, b, c", "7: a, b, c and 4 more"."""
    return f"{len(layers)}: {first(layers, SHOWN)}" if layers else "none"


def _notes(record: MixedRecord) -> tuple[str, ...]:
    share = 100 * record.float_parameters / record.parameters
    notes = [
        f"{len(record.float_layers)} of {record.layers} int8 layers taken out after training, {share:.1f}% of their "
        f"weights: {', '.join(record.float_layers) or 'none'}"
    ]
    if record.budget_pp is None:
        return (*notes, "all of them were named beforehand: nothing was searched")
    notes.append(
        f"Budget {record.budget_pp:g} points of top-1 against the float model, held by the point estimate of every row "
        "of the result. Drops with their paired 95% interval; smallest detectable: the drop that the one-sided exact "
        "McNemar test finds with 80% power on so many images."
    )
    if record.ranking:
        best = record.ranking[0]
        notes.append(
            f"Layers were ranked on {record.ranking_images} images by what each alone in float leaves of the KL "
            f"divergence from the program without rounding; first is {best.name}."
        )
    reasons = dict.fromkeys(reason for trial in record.trials for reason in trial.unavailable)
    return (*notes, *(f"not held against the budget: {reason}" for reason in reasons))
