"""A report and a folder in; report.json, report.md and report.html in that folder out."""

from __future__ import annotations

from pathlib import Path

from pipeline.reports import html, markdown
from pipeline.reports.schema import Report, report_to_json
from pipeline.rundir import write_atomic

REPORT_FILES = ("report.json", "report.md", "report.html")


def write_report(report: Report, folder: Path) -> tuple[str, ...]:
    """Write all three; everything is rendered before the first byte is written. Returns their names."""
    texts = (report_to_json(report), markdown.render(report), html.render(report))
    for name, text in zip(REPORT_FILES, texts, strict=True):
        write_atomic(folder / name, text)
    return REPORT_FILES
