"""Write the report: report.json, report.md, and one report.html that opens offline, light and dark, and on a phone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.files import write_atomic
from pipeline.records.report import Report, report_to_json
from pipeline.report import markdown
from pipeline.report.cells import cells, control_model
from pipeline.report.plots.answers import agreements, by_class, flipped
from pipeline.report.plots.files import coverage, sizes
from pipeline.report.plots.latency import accuracy_against_latency, latency_samples
from pipeline.report.plots.layers import layers
from pipeline.report.plots.panels import MARKERS, SERIES, Figure, anchor, colours
from pipeline.report.plots.stages import drift_by_stage, waterfalls
from pipeline.report.sections import details
from pipeline.report.tables.accuracy import overview
from pipeline.report.values import printable
from pipeline.run.layout import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN

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
            details=details(report),
            figures=figures(report),
            models=[(model, SERIES.index(colour) + 1) for model, colour in colours(report).items()],
            variants=[(variant, GLYPHS[MARKERS[variant]]) for variant in variants],
            control=control_model(report),
        )
    )


def environment() -> Environment:
    """For every page: the parts of parts.html.j2, `style`, `script`, and the hash that the page's policy allows."""
    made = Environment(
        loader=PackageLoader("pipeline.report"),
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
    return (files("pipeline.report") / "templates" / name).read_text(encoding="utf-8")


REPORT_FILES = (REPORT_JSON, REPORT_MARKDOWN, REPORT_HTML)


def write_report(report: Report, folder: Path) -> tuple[str, ...]:
    """Write all three; everything is rendered before the first byte is written. Returns their names."""
    texts = (report_to_json(report), markdown.render(report), render(report))
    for name, text in zip(REPORT_FILES, texts, strict=True):
        write_atomic(folder / name, text)
    return REPORT_FILES


FIGURES: tuple[Callable[[Report], Figure | None], ...] = (
    waterfalls,
    drift_by_stage,
    accuracy_against_latency,
    agreements,
    by_class,
    flipped,
    layers,
    coverage,
    sizes,
    latency_samples,
)


def figures(report: Report) -> tuple[Figure, ...]:
    """Those that this report has something to say about, and those that were not measured."""
    made = (make(report) for make in FIGURES)
    return tuple(figure for figure in made if figure is not None)
