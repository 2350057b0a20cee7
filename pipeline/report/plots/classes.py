"""A run's waterfall in, which classes lose right answers from the first stage to each artifact out, worst first."""

from __future__ import annotations

from pipeline.metrics.accuracy import ClassCount, wilson_percent
from pipeline.records.report import Report, RunRecord
from pipeline.records.waterfall import WaterfallRecord, WaterfallStage
from pipeline.report import stage_names
from pipeline.report import values as v
from pipeline.report.plots.figure import Figure
from pipeline.report.plots.panels import Panel, one_axes, rows, span
from pipeline.report.plots.svg import FONT_PT, GAIN, INK, LOSS, MUTED, PAPER, inline_svg
from pipeline.report.tables.table import Table
from pipeline.report.values import Value

LEAD = (
    "Right answers by class, from the first stage (hollow) to each artifact (filled, 95% Wilson interval), worst first."
)
MOST = 20  # classes of one plot or table: more are not read
NAME_CHARS = 22

Counts = dict[int, ClassCount]
Alike = list[tuple[list[WaterfallStage], Counts]]


def by_class(report: Report) -> Figure | None:
    """None if no run has a waterfall with an artifact in it."""
    panels: list[Panel] = []
    tables, notes = [], []
    for run in report.runs:
        if run.waterfall is None or not (artifacts := [s for s in run.waterfall.stages if s.cell is not None]):
            continue
        first = _counts(run.waterfall.stages[0])
        changed = [s for s in artifacts if _counts(s) != first]
        for stages, counts in _alike(changed):
            title = f"{run.model}: {', '.join(stage_names.label(s, ' ') for s in stages)}"
            panels.append(_panel(run.waterfall, first, counts, f"class-{len(panels)}", title))
        tables.append(class_table(run.model, run.waterfall))
        if unchanged := [stage_names.label(s, " ") for s in artifacts if s not in changed]:
            notes.append(f"{run.model}: no class has more or fewer right answers in {', '.join(unchanged)}.")
    return (
        Figure("Drop by class", LEAD, tuple(panels), tables=tuple(tables), notes=tuple(notes), legend="changes")
        if tables
        else None
    )


def _counts(stage: WaterfallStage) -> Counts:
    return {count.label: count for count in stage.per_class}


def _alike(stages: list[WaterfallStage]) -> Alike:
    """Artifacts with the same counts in every class share a plot."""
    found: Alike = []
    for stage in stages:
        counts = _counts(stage)
        same = next((group for group, theirs in found if theirs == counts), None)
        if same is None:
            found.append(([stage], counts))
        else:
            same.append(stage)
    return found


def _drop(before: ClassCount, after: ClassCount) -> float:
    return (before.top1 - after.top1) / before.n


def _panel(record: WaterfallRecord, first: Counts, counts: Counts, name: str, title: str) -> Panel:
    order = sorted(counts, key=lambda label: (-_drop(first[label], counts[label]), label))[:MOST]
    with one_axes(0.6 + 0.24 * len(order)) as (figure, axes):
        for row, label in enumerate(order):
            before, after = first[label], counts[label]
            low, high = wilson_percent(after.top1, after.n)
            was, now = 100 * before.top1 / before.n, 100 * after.top1 / after.n
            axes.plot(
                [low, high], [row + 0.27] * 2, color=MUTED, linewidth=1, zorder=1
            )  # beside the change, not under it
            axes.plot([was, now], [row, row], color=LOSS if now < was else GAIN, linewidth=3, zorder=2)
            axes.plot(was, row, "o", color=INK, markerfacecolor=PAPER, markersize=6, zorder=3)
            axes.plot(now, row, "o", color=INK, markersize=5, zorder=4)
            axes.text(
                1.03,
                row,
                f"{before.top1} → {after.top1} of {after.n}",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=FONT_PT - 2,
            )
        rows(axes, [stage_names.brief(stage_names.class_name(record, label), NAME_CHARS) for label in order])
        axes.set_xlabel("top-1 of the class, %")
        svg = inline_svg(figure, name, f"Top-1 by class of {title}")
    images = span(sorted({counts[label].n for label in order}))
    hidden = len(counts) - len(order)
    rest = f"; {hidden} classes with no larger drop are not shown" if hidden else ""
    return Panel(title, svg, f"n {images} images of a class; right: right answers before and after{rest}")


def classes_of_run(run: RunRecord) -> Table | None:
    """None for a run without a waterfall, or without an artifact in it."""
    if run.waterfall is None or all(stage.cell is None for stage in run.waterfall.stages):
        return None
    return class_table(run.model, run.waterfall)


def class_table(model: str, record: WaterfallRecord) -> Table:
    """Drop of each class from the first stage to every artifact; of many classes the worst."""
    first, artifacts = _counts(record.stages[0]), [stage for stage in record.stages if stage.cell is not None]
    after = [_counts(stage) for stage in artifacts]
    worst = {label: max(_drop(count, counts[label]) for counts in after) for label, count in first.items()}
    order = sorted(first, key=lambda label: (-worst[label], label))
    hidden = len(order) - MOST
    notes = [
        f"Percentage points of the class's images that are right in {stage_names.label(record.stages[0], ' ')} and not "
        "in the artifact, with the artifact's 95% Wilson interval of top-1 in percent. Sorted by the largest drop."
    ]
    if hidden > 0:
        notes.append(f"{hidden} of {len(order)} classes, with no larger drop, are not shown; report.json has them.")
    return Table(
        title=f"{model}: drop by class",
        header=("Class", "Images", "First stage", *(stage_names.label(stage, " ") for stage in artifacts)),
        rows=tuple(
            (
                v.words(stage_names.class_name(record, label)),
                v.count(first[label].n),
                v.share_with_interval(first[label].top1, first[label].n),
                *(_drop_value(first[label], counts[label]) for counts in after),
            )
            for label in order[:MOST]
        ),
        notes=tuple(notes),
    )


def _drop_value(before: ClassCount, after: ClassCount) -> Value:
    low, high = wilson_percent(after.top1, after.n)
    drop = _drop(before, after)
    return Value(f"{v.signed(100 * drop, 1)} pp\n{low:.0f}–{high:.0f}, n {after.n}", sort=drop)
