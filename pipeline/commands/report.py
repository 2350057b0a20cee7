"""`report`: show everything known of a run, and write report.json, report.md and report.html into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunChoice, say
from pipeline.run.folder import Run

if TYPE_CHECKING:
    from pipeline.records.report import Report


@from_plans
def report(*, where: RunChoice) -> None:
    from pipeline.report.collect import make_report

    found = where.find()
    show(found, make_report(found, where.runs_dir))


def show(found: Run, made: Report) -> None:
    """The tables of a run's report, and where its files are."""
    from pipeline.report.page import terminal_tables
    from pipeline.report.tables.table import print_tables
    from pipeline.run.facts import CONTROL_MODEL, read_config
    from pipeline.run.layout import REPORT_HTML

    print_tables(terminal_tables(made))
    if all(record.model != CONTROL_MODEL for record in made.runs):
        data = read_config(found).data
        say(
            f"\n{CONTROL_MODEL} has no accuracy in this report: `quantize {CONTROL_MODEL} --data {data}`, `convert` "
            f"and `validate`, then `benchmark --run {found.id}` and `report --run {found.id}`"
        )
    print(f"\nreport: {found.path / REPORT_HTML}")
