"""Write the report: its sections in reading order as report.json, report.md and one report.html that opens offline."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.files import write_atomic
from pipeline.records.report import Report, RunRecord, report_to_json
from pipeline.report import values as v
from pipeline.report.cells import cells, control_model
from pipeline.report.plots.answers import agreements, by_class, flipped
from pipeline.report.plots.figure import SERIES, Figure, anchor, colours
from pipeline.report.plots.files import coverage, sizes
from pipeline.report.plots.latency import accuracy_against_latency, latency_samples
from pipeline.report.plots.layers import layers
from pipeline.report.plots.panels import MARKERS
from pipeline.report.plots.stages import drift_by_stage as drift_figure
from pipeline.report.plots.stages import waterfalls
from pipeline.report.tables.accuracy import drift_by_stage, overview, range_events
from pipeline.report.tables.artifacts import artifacts
from pipeline.report.tables.beside import beside_float
from pipeline.report.tables.latency import instructions, latencies
from pipeline.report.tables.mixed import mixed_precision
from pipeline.report.tables.table import Table, escaped, table_lines
from pipeline.report.tables.waterfall import classes_of_run, layers_of_run, waterfall_of_run
from pipeline.report.values import printable
from pipeline.run.layout import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN

GLYPHS = {
    "o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "<": "◀", ">": "▶",
    "P": "✚", "X": "✖", "p": "⬟", "h": "⬢", "*": "★",
}  # fmt: skip


def render(report: Report) -> str:
    """The page. All text is escaped by the template engine; only the plots' SVG, the style and the script are not."""
    variants = dict.fromkeys(cell.file.variant for cell in cells(report) if cell.latency and cell.latency.rounds_ms)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=report.runs[0],
            generated_utc=report.generated_utc,
            first=beside_float(report),
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
    texts = (report_to_json(report), as_markdown(report), render(report))
    for name, text in zip(REPORT_FILES, texts, strict=True):
        write_atomic(folder / name, text)
    return REPORT_FILES


FIGURES: tuple[Callable[[Report], Figure | None], ...] = (
    waterfalls,
    drift_figure,
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


def provenance(run: RunRecord) -> Table:
    """How the figures came about, flattened to key and value."""
    facts: dict[str, object] = {
        "run": run.run_id,
        "created": run.created_utc,
        "parameters": f"{run.parameters:,}",
        "classes": run.num_classes,
        "data": f"{run.data.name}: {run.data.n_train} training, {run.data.n_val} validation images",
        "data.train_digest": run.data.train_digest,
        "data.val_digest": run.data.val_digest,
        "preprocessing": run.preprocessing or "not recorded",
        "weights": run.weights.source,
        "weights.sha256": run.weights.sha256,
        "artifacts": {
            f"{c.target} {c.artifact.variant}": f"{c.path}, sha256 {c.sha256}"
            for c in run.conversions
            if c.path is not None
        },
        "scheme": run.scheme,
        "calibration": run.calibration,
        "training": run.training,
        "provenance": run.provenance,
    }
    rows = tuple((v.words(key), v.words(value)) for key, value in v.flat(facts))
    return Table(f"{run.model}: provenance", ("What", "Value"), rows, label_columns=2)


#: Each is None for a run that has nothing for it.
RunTable = Callable[[RunRecord], Table | None]
#: Of a page these stand below the plots of the same figures.
WATERFALL: tuple[RunTable, ...] = (waterfall_of_run, classes_of_run, layers_of_run)
DETAILS: tuple[RunTable, ...] = (
    mixed_precision,
    drift_by_stage,
    range_events,
    artifacts,
    latencies,
    instructions,
    provenance,
)


TERMINAL: tuple[RunTable, ...] = (waterfall_of_run, mixed_precision, drift_by_stage, range_events, artifacts, latencies)


def all_tables(report: Report) -> tuple[Table, ...]:
    """Every table, in reading order."""
    return *_first(report), *_made(report.runs, (*WATERFALL, *DETAILS))


def details(report: Report) -> tuple[Table, ...]:
    """Those that no figure of the page holds."""
    return _made(report.runs, DETAILS)


def terminal_tables(report: Report) -> tuple[Table, ...]:
    """The first two, then those of the report's first run; the files have the rest."""
    return *_first(report), *_made(report.runs[:1], TERMINAL)


def _first(report: Report) -> tuple[Table, ...]:
    return tuple(table for table in (beside_float(report), overview(report)) if table is not None)


def _made(runs: Sequence[RunRecord], makers: tuple[RunTable, ...]) -> tuple[Table, ...]:
    made = (make(run) for run in runs for make in makers)
    return tuple(table for table in made if table is not None)


def as_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown."""
    title = f"# Report of {escaped(report.runs[0].model)}\n\nMade {escaped(report.generated_utc)}.\n"
    return "\n".join([title, *map(table_lines, all_tables(report))])
