"""`report`: everything known of a run in; tables here, and report.json, report.md and report.html in the run, out."""

from __future__ import annotations

from pipeline.commands.options import RUNS, RunDir, RunsDir
from pipeline.rundir import find_run


def report(run: RunDir = None, runs_dir: RunsDir = RUNS) -> None:
    """Accuracy, drift, conversion facts and latency in one place."""
    found = find_run(runs_dir, run)
    from pipeline.reports import terminal
    from pipeline.reports.write import write_report
    from pipeline.stages.collect import collect_report

    collected = collect_report(found, runs_dir)
    found.record(*write_report(collected, found.path))
    terminal.show(collected)
    print(f"\nreport: {found.path / 'report.html'}")
