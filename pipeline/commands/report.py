"""`report`: show everything known of a run, and write report.json, report.md and report.html into it."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import RunChoice, say
from pipeline.run.folder import Run


@from_plans
def report(*, where: RunChoice) -> None:
    """Accuracy, drift, conversion facts and latency in one place."""
    report_on(where.find(), where.runs_dir)


def report_on(found: Run, runs_dir: Path) -> None:
    """Write the report of a run, and print its tables."""
    from pipeline.report.collect import collect_report
    from pipeline.report.page import terminal_tables, write_report
    from pipeline.report.tables.table import print_tables
    from pipeline.run.facts import CONTROL_MODEL, read_config
    from pipeline.run.layout import REPORT_HTML

    collected = collect_report(found, runs_dir)
    found.record(*write_report(collected, found.path))
    print_tables(terminal_tables(collected))
    if all(record.model != CONTROL_MODEL for record in collected.runs):
        data = read_config(found).data
        say(
            f"\n{CONTROL_MODEL} has no accuracy in this report: `quantize {CONTROL_MODEL} --data {data}`, `convert` "
            f"and `validate`, then `benchmark --run {found.id}` and `report --run {found.id}`"
        )
    print(f"\nreport: {found.path / REPORT_HTML}")
