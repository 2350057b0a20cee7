"""A report in, all of its tables in reading order out."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.records.report import Report, RunRecord
from pipeline.report import values as v
from pipeline.report.cells import variant_name
from pipeline.report.plots.classes import classes_of_run
from pipeline.report.plots.layers import layers_of_run
from pipeline.report.plots.waterfall import stages
from pipeline.report.tables.artifacts import artifacts
from pipeline.report.tables.drift import drift_by_stage, range_events
from pipeline.report.tables.latency import instructions, latencies
from pipeline.report.tables.mixed import mixed_precision
from pipeline.report.tables.overview import overview
from pipeline.report.tables.table import Table


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
    return Table(title=f"{run.model}: provenance", header=("What", "Value"), rows=rows, label_columns=2)


#: Each is None for a run that has nothing for it.
RunTable = Callable[[RunRecord], Table | None]
#: Of a page these stand below the plots of the same figures.
WATERFALL: tuple[RunTable, ...] = (stages, classes_of_run, layers_of_run)
DETAILS: tuple[RunTable, ...] = (
    mixed_precision,
    drift_by_stage,
    range_events,
    artifacts,
    latencies,
    instructions,
    provenance,
)


def all_tables(report: Report) -> tuple[Table, ...]:
    """Every table, in reading order."""
    return overview(report), *_made(report, (*WATERFALL, *DETAILS))


def details(report: Report) -> tuple[Table, ...]:
    """Those that no figure of the page holds."""
    return _made(report, DETAILS)


def _made(report: Report, makers: tuple[RunTable, ...]) -> tuple[Table, ...]:
    made = (make(run) for run in report.runs for make in makers)
    return tuple(table for table in made if table is not None)
