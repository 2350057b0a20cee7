"""Which tables a report has, in reading order: in its files, and on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.records.report import Report, RunRecord
from pipeline.report import values as v
from pipeline.report.cells import variant_name
from pipeline.report.tables.accuracy import drift_by_stage, overview, range_events
from pipeline.report.tables.artifacts import artifacts
from pipeline.report.tables.latency import instructions, latencies
from pipeline.report.tables.mixed import mixed_precision
from pipeline.report.tables.table import Table
from pipeline.report.tables.waterfall import classes_of_run, layers_of_run, waterfall_of_run


def provenance(run: RunRecord) -> Table:
    """How the figures came about, flattened to key and value."""
    facts: dict[str, object] = {
        "run": run.run_id,
        "created": run.created_utc,
        "parameters": f"{run.parameters:,}",
        "classes": run.num_classes,
        "data": f"{run.data.name}: {run.data.n_train} training, {run.data.n_val} validation images",
        "data.train_digest": run.data.train_digest,
        "data.val_digest": run.data.val_digest,
        "weights": run.weights.source,
        "weights.sha256": run.weights.sha256,
        "artifacts": {
            f"{c.target} {variant_name(c.precision, c.source)}": f"{c.path}, sha256 {c.sha256}"
            for c in run.conversions
            if c.path is not None
        },
        "scheme": run.scheme,
        "calibration": run.calibration,
        "training": run.training,
        "provenance": run.provenance,
    }
    rows = tuple((v.words(key), v.words(value)) for key, value in v.flat(facts))
    return Table(f"{run.model}: provenance", ("What", "Value"), rows, label_columns=2)


#: Each is None for a run that has nothing for it.
RunTable = Callable[[RunRecord], Table | None]
#: Of a page these stand below the plots of the same figures.
WATERFALL: tuple[RunTable, ...] = (waterfall_of_run, classes_of_run, layers_of_run)
DETAILS: tuple[RunTable, ...] = (
    mixed_precision,
    drift_by_stage,
    range_events,
    artifacts,
    latencies,
    instructions,
    provenance,
)


TERMINAL: tuple[RunTable, ...] = (waterfall_of_run, mixed_precision, drift_by_stage, range_events, artifacts, latencies)


def all_tables(report: Report) -> tuple[Table, ...]:
    """Every table, in reading order."""
    return overview(report), *_made(report.runs, (*WATERFALL, *DETAILS))


def details(report: Report) -> tuple[Table, ...]:
    """Those that no figure of the page holds."""
    return _made(report.runs, DETAILS)


def terminal_tables(report: Report) -> tuple[Table, ...]:
    """The overview, then those of the report's first run; the files have the rest."""
    return overview(report), *_made(report.runs[:1], TERMINAL)


def _made(runs: Sequence[RunRecord], makers: tuple[RunTable, ...]) -> tuple[Table, ...]:
    made = (make(run) for run in runs for make in makers)
    return tuple(table for table in made if table is not None)
