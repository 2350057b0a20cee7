"""A run's search for float layers in, the table of its trials and what came of them out."""

from __future__ import annotations

from pipeline.records.mixed import CellDrop, MixedRecord, Trial
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.tables.table import Table
from pipeline.report.values import Value

SHOWN = 3  # names in a row
HEADER = ("Float layers", "Judged", "Lost / gained", "Drop in points", "Smallest detectable", "Size", "Within budget")


def mixed_precision(run: RunRecord) -> Table | None:
    """None for a run in which no float layers were asked for after training."""
    return None if run.mixed is None else mixed_table(run.model, run.mixed)


def mixed_table(model: str, record: MixedRecord) -> Table:
    """A row for each program and file that was judged; those of the result are marked."""
    return Table(
        title=f"{model}: mixed precision",
        header=HEADER,
        rows=tuple(_row(record, trial, cell) for trial in record.trials for cell in trial.cells),
        label_columns=2,
        notes=_notes(record),
    )


def _row(record: MixedRecord, trial: Trial, cell: CellDrop) -> tuple[Value, ...]:
    paired = cell.paired
    low, high = paired.interval_pp()
    smallest = paired.detectable_pp()
    size = Value("–", "text") if cell.size_bytes is None else v.megabytes(cell.size_bytes)
    return (
        v.words(_names(trial.float_layers) + ("\n(the result)" if trial.float_layers == record.float_layers else "")),
        v.words(cell.name),
        Value(f"{cell.lost} / {cell.gained}\nn {cell.n}", sort=cell.lost - cell.gained),
        Value(
            f"{v.signed(paired.drop_pp, 2)}\n{v.signed(low, 1)} to {v.signed(high, 1)}",
            sort=paired.drop_pp,
        ),
        Value("none", "text") if smallest is None else Value(f"{smallest:.2f}", sort=smallest),
        size,
        v.NONE_HERE
        if record.budget_pp is None
        else Value("yes" if cell.drop_pp <= record.budget_pp else "no", "text", sort=cell.drop_pp - record.budget_pp),
    )


def _names(layers: tuple[str, ...]) -> str:
    """ "none", "3: a, b, c", "7: a, b, c and 4 more"."""
    if not layers:
        return "none"
    rest = len(layers) - SHOWN
    return f"{len(layers)}: {', '.join(layers[:SHOWN])}" + (f" and {rest} more" if rest > 0 else "")


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
