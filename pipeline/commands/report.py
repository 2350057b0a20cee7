"""`report`: everything known of a run in; tables here, and report.json, report.md and report.html in the run, out."""

from __future__ import annotations

from pipeline.commands.options import RUNS, RunDir, RunsDir, say
from pipeline.run.folder import find_run


def report(run: RunDir = None, runs_dir: RunsDir = RUNS) -> None:
    """Accuracy, drift, conversion facts and latency in one place."""
    found = find_run(runs_dir, run)
    from pipeline.report import terminal
    from pipeline.report.collect import collect_report
    from pipeline.report.page import write_report
    from pipeline.run.control import CONTROL_MODEL
    from pipeline.run.facts import read_config
    from pipeline.run.layout import REPORT_HTML

    collected = collect_report(found, runs_dir)
    found.record(*write_report(collected, found.path))
    terminal.show(collected)
    if all(record.model != CONTROL_MODEL for record in collected.runs):
        data = read_config(found).data
        say(
            f"\n{CONTROL_MODEL} has no accuracy in this report: `quantize {CONTROL_MODEL} --data {data}`, `convert` "
            f"and `validate`, then `benchmark --run {found.id}` and `report --run {found.id}`"
        )
    print(f"\nreport: {found.path / REPORT_HTML}")
