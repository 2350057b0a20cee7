"""`report`: show everything known of a run, and write report.json, report.md and report.html into it."""

from __future__ import annotations

from pipeline.commands.options import RUNS, RunDir, RunsDir, say
from pipeline.run.folder import find_run


def report(run: RunDir = None, runs_dir: RunsDir = RUNS) -> None:
    """Accuracy, drift, conversion facts and latency in one place."""
    found = find_run(runs_dir, run)
    from pipeline.report.collect import collect_report
    from pipeline.report.page import write_report
    from pipeline.report.sections import terminal_tables
    from pipeline.report.tables.table import print_tables
    from pipeline.run.checkpoint import CONFIG
    from pipeline.run.control import CONTROL_MODEL

    collected = collect_report(found, runs_dir)
    found.record(*write_report(collected, found.path))
    print_tables(terminal_tables(collected))
    if all(record.model != CONTROL_MODEL for record in collected.runs):
        data = found.read_json(CONFIG)["data"]
        say(
            f"\n{CONTROL_MODEL} has no accuracy in this report: `quantize {CONTROL_MODEL} --data {data}`, `convert` "
            f"and `validate`, then `benchmark --run {found.id}` and `report --run {found.id}`"
        )
    print(f"\nreport: {found.path / 'report.html'}")
