"""How the stages answer: where two of them agree, the images whose answer changes, and right answers by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.metrics.accuracy import ClassCount, wilson_percent
from pipeline.records.report import Report
from pipeline.records.waterfall import ImageRecord, WaterfallRecord, WaterfallStage
from pipeline.report.cells import class_name, stage_label
from pipeline.report.plots.figure import Answer, Figure, Matrix, Panel, Picture, span
from pipeline.report.plots.panels import GAIN, INK, LOSS, MUTED, PAPER, beside, row_panel
from pipeline.report.tables.waterfall import MOST_CLASSES, class_counts, class_drop, class_table
from targets.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AGREEMENT_LEAD = "On how many images two stages give the same top class, right or wrong: more colour, more that differ."
FLIPPED_LEAD = (
    "Images whose answer changes at some stage, the furthest moved first: the first stage's answer, then what differs."
)
CLASS_LEAD = (
    "Right answers by class, from the first stage (hollow) to each artifact (filled, 95% Wilson interval), worst first."
)
NAME_CHARS = 22

Counts = dict[int, ClassCount]


def agreements(report: Report) -> Figure | None:
    """None if no run has a waterfall."""
    matrices = tuple(_matrix(run.model, run.waterfall) for run in report.runs if run.waterfall is not None)
    return Figure("Agreement", AGREEMENT_LEAD, matrices=matrices) if matrices else None


def _matrix(model: str, record: WaterfallRecord) -> Matrix:
    fewest = min(count for row in record.agreement for count in row)
    low, high = wilson_percent(fewest, record.n)
    return Matrix(
        title=model,
        labels=tuple(map(stage_label, record.stages)),
        counts=record.agreement,
        n=record.n,
        caption=f"n {record.n} images. The two furthest apart agree on {fewest}: {100 * fewest / record.n:.2f}%, "
        f"95% Wilson interval {low:.1f}–{high:.1f}.",
    )


def flipped(report: Report) -> Figure | None:
    """None if no run has a waterfall, or no image changed its answer."""
    pictures: list[Picture] = []
    notes = []
    for run in report.runs:
        if run.waterfall is None:
            continue
        changed = [image for image in run.waterfall.images if len(set(image.classes)) > 1]
        pictures += [_picture(run.waterfall, image) for image in changed]
        notes.append(f"{run.model}: {len(changed)} images shown of n {run.waterfall.n}. {_totals(run.waterfall)}")
    return Figure("Flipped images", FLIPPED_LEAD, pictures=tuple(pictures), notes=tuple(notes)) if pictures else None


def _totals(record: WaterfallRecord) -> str:
    """How many images each artifact answers otherwise than the first stage."""
    found = [
        f"{stage_label(stage)} {record.n - record.agreement[0][i]}"
        for i, stage in enumerate(record.stages)
        if stage.cell is not None
    ]
    return f"Answers other than {stage_label(record.stages[0])}'s: {', '.join(found)}." if found else ""


def _picture(record: WaterfallRecord, image: ImageRecord) -> Picture:
    said: dict[int | None, list[str]] = {}
    for stage, top in zip(record.stages, image.classes, strict=True):
        said.setdefault(top, []).append(stage_label(stage))
    answers = [
        Answer(
            class_name(record, top),
            _stages(stages) if top == image.classes[0] else ", ".join(stages),
            None if top is None else top == image.label,
        )
        for top, stages in said.items()
    ]
    return Picture(image.name, class_name(record, image.label), image.thumbnail, tuple(answers))


def _stages(names: list[str]) -> str:
    """Of those that answer as the first one: its name, and how many more there are."""
    return names[0] + (f" and {plural(len(names) - 1, 'other')}" if names[1:] else "")


def by_class(report: Report) -> Figure | None:
    """None if no run has a waterfall with an artifact in it."""
    panels: list[Panel] = []
    tables, notes = [], []
    for run in report.runs:
        if run.waterfall is None or not (artifacts := [s for s in run.waterfall.stages if s.cell is not None]):
            continue
        first = class_counts(run.waterfall.stages[0])
        changed = [s for s in artifacts if class_counts(s) != first]
        for stages, counts in _alike(changed):
            title = f"{run.model}: {', '.join(map(stage_label, stages))}"
            panels.append(_class_panel(run.waterfall, first, counts, f"class-{len(panels)}", title))
        tables.append(class_table(run.model, run.waterfall))
        if unchanged := [stage_label(s) for s in artifacts if s not in changed]:
            notes.append(f"{run.model}: no class has more or fewer right answers in {', '.join(unchanged)}.")
    if not tables:
        return None
    return Figure(
        "Drop by class", CLASS_LEAD, tuple(panels), tables=tuple(tables), notes=tuple(notes), legend="changes"
    )


def _alike(stages: list[WaterfallStage]) -> list[tuple[list[WaterfallStage], Counts]]:
    """Artifacts with the same counts in every class share a plot."""
    found: list[tuple[list[WaterfallStage], Counts]] = []
    for stage in stages:
        counts = class_counts(stage)
        same = next((group for group, theirs in found if theirs == counts), None)
        if same is None:
            found.append(([stage], counts))
        else:
            same.append(stage)
    return found


def _class_panel(record: WaterfallRecord, first: Counts, counts: Counts, name: str, title: str) -> Panel:
    order = sorted(counts, key=lambda label: (-class_drop(first[label], counts[label]), label))[:MOST_CLASSES]
    hidden = len(counts) - len(order)
    rest = f"; {hidden} classes with no larger drop are not shown" if hidden else ""
    images = span(sorted({counts[label].n for label in order}))

    def draw(axes: Axes, row: int, label: int) -> str:
        _class_row(axes, row, first[label], counts[label])
        return _brief(class_name(record, label))

    caption = f"n {images} images of a class; right: right answers before and after{rest}"
    return row_panel(title, caption, name, f"Top-1 by class of {title}", order, draw, "top-1 of the class, %", 0.24)


def _class_row(axes: Axes, row: int, before: ClassCount, after: ClassCount) -> None:
    interval = wilson_percent(after.top1, after.n)
    was, now = 100 * before.top1 / before.n, 100 * after.top1 / after.n
    axes.plot(interval, [row + 0.27] * 2, color=MUTED, linewidth=1, zorder=1)  # beside the change, not under it
    axes.plot([was, now], [row, row], color=LOSS if now < was else GAIN, linewidth=3, zorder=2)
    axes.plot(was, row, "o", color=INK, markerfacecolor=PAPER, markersize=6, zorder=3)
    axes.plot(now, row, "o", color=INK, markersize=5, zorder=4)
    beside(axes, row, f"{before.top1} → {after.top1} of {after.n}")


def _brief(text: str) -> str:
    """The end of a long name cut off with an ellipsis."""
    return text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1].rstrip() + "…"
