"""A report in, the waterfalls of its runs out: the figure of the page, and the table of stages for every report."""

from __future__ import annotations

from dataclasses import replace

from pipeline.reports import waterfall_plot, waterfall_table
from pipeline.reports.figure import Figure
from pipeline.reports.schema import Report, RunRecord
from pipeline.reports.table import Table

LEAD = (
    "Top-1 of the same images at every stage, from the float network in its published form down to each file in its "
    "runtime. Dotted lines lead from the stage that a stage is made from."
)


def waterfalls(report: Report) -> Figure | None:
    """None if no run has a waterfall."""
    panels = waterfall_plot.panels(report)
    if not panels:
        return None
    tables = tuple(table for run in report.runs if (table := stages(run)) is not None)
    return Figure("Where the accuracy goes", LEAD, panels, tables=tables, legend="steps", open_tables=True)


def stages(run: RunRecord) -> Table | None:
    """One row for each stage; below it, the drop of each artifact as the sum of its steps."""
    if run.waterfall is None:
        return None
    table = waterfall_table.stage_table(run.waterfall)
    return replace(
        table, title=f"{run.model}: waterfall", notes=(*table.notes, *waterfall_table.attribution(run.waterfall))
    )
