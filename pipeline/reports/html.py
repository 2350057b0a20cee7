"""A report in, the text of one self-contained report.html out: it opens offline, light and dark, and on a phone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.reports import tables
from pipeline.reports.cells import cells, control_model
from pipeline.reports.panels import MARKERS, Panel, colours
from pipeline.reports.plots import PLOTS
from pipeline.reports.schema import Report
from pipeline.reports.svg import SERIES
from pipeline.reports.values import printable

GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲"}


@dataclass(frozen=True)
class Figure:
    title: str
    anchor: str
    panels: tuple[Panel, ...]


def render(report: Report) -> str:
    """The page. All text is escaped by the template engine; only the plots' SVG is put in as it is."""
    environment = Environment(
        loader=PackageLoader("pipeline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    all_tables = tables.all_tables(report)
    variants = dict.fromkeys(cell.variant for cell in cells(report) if cell.latency and cell.latency.rounds_ms)
    return environment.get_template("report.html.j2").render(
        run=report.runs[0],
        generated_utc=report.generated_utc,
        overview=all_tables[0],
        details=all_tables[1:],
        figures=[Figure(title, _anchor(title), make(report)) for title, make in PLOTS.items()],
        models=[(model, SERIES.index(colour) + 1) for model, colour in colours(report).items()],
        variants=[(variant, GLYPHS[MARKERS[variant]]) for variant in variants],
        control=control_model(report),
        anchor=_anchor,
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
