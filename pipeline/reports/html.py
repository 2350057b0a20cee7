"""A report in, the text of one self-contained report.html out: it opens offline, light and dark, and on a phone."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.reports import tables
from pipeline.reports.cells import cells, control_model
from pipeline.reports.figure import anchor
from pipeline.reports.overview_table import overview
from pipeline.reports.panels import MARKERS, colours
from pipeline.reports.plots import figures
from pipeline.reports.schema import Report
from pipeline.reports.svg import SERIES
from pipeline.reports.values import printable

GLYPHS = {
    "o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "<": "◀", ">": "▶",
    "P": "✚", "X": "✖", "p": "⬟", "h": "⬢", "*": "★",
}  # fmt: skip


def render(report: Report) -> str:
    """The page. All text is escaped by the template engine; only the plots' SVG, the style and the script are not."""
    variants = dict.fromkeys(cell.variant for cell in cells(report) if cell.latency and cell.latency.rounds_ms)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=report.runs[0],
            generated_utc=report.generated_utc,
            overview=overview(report),
            details=tables.details(report),
            figures=figures(report),
            models=[(model, SERIES.index(colour) + 1) for model, colour in colours(report).items()],
            variants=[(variant, GLYPHS[MARKERS[variant]]) for variant in variants],
            control=control_model(report),
        )
    )


def environment() -> Environment:
    """For every page: the parts of parts.html.j2, `style`, `script`, and the hash that the page's policy allows."""
    made = Environment(
        loader=PackageLoader("pipeline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["printable"] = printable
    script = _asset("sort.js")
    made.globals.update(style=_asset("style.css"), script=script, script_hash=csp_hash(script), anchor=anchor)
    return made


def csp_hash(script: str) -> str:
    """What a Content-Security-Policy calls exactly this text of a `<script>` element."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _asset(name: str) -> str:
    return (files("pipeline.reports") / "templates" / name).read_text(encoding="utf-8")
