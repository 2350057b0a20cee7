"""How the stages answer: on how many images two of them agree, and the images whose answer changes."""

from __future__ import annotations

from pipeline.metrics.accuracy import wilson_percent
from pipeline.records.report import Report
from pipeline.records.waterfall import ImageRecord, WaterfallRecord
from pipeline.report import stage_names
from pipeline.report.plots.figure import Answer, Figure, Matrix, Picture

LEAD = "On how many images two stages give the same top class, right or wrong: more colour, more that differ."


def agreements(report: Report) -> Figure | None:
    """None if no run has a waterfall."""
    matrices = tuple(_matrix(run.model, run.waterfall) for run in report.runs if run.waterfall is not None)
    return Figure("Agreement", LEAD, matrices=matrices) if matrices else None


def _matrix(model: str, record: WaterfallRecord) -> Matrix:
    labels = tuple(stage_names.label(stage, " ") for stage in record.stages)
    fewest = min(count for row in record.agreement for count in row)
    low, high = wilson_percent(fewest, record.n)
    return Matrix(
        title=model,
        labels=labels,
        counts=record.agreement,
        n=record.n,
        caption=f"n {record.n} images. The two furthest apart agree on {fewest}: {100 * fewest / record.n:.2f}%, "
        f"95% Wilson interval {low:.1f}–{high:.1f}.",
    )


FLIPPED_LEAD = (
    "Images whose answer changes at some stage, the furthest moved first: the first stage's answer, then what differs."
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
        f"{stage_names.label(stage, ' ')} {record.n - record.agreement[0][i]}"
        for i, stage in enumerate(record.stages)
        if stage.cell is not None
    ]
    first = stage_names.label(record.stages[0], " ")
    return f"Answers other than {first}'s: {', '.join(found)}." if found else ""


def _picture(record: WaterfallRecord, image: ImageRecord) -> Picture:
    said: dict[int | None, list[str]] = {}
    for stage, top in zip(record.stages, image.classes, strict=True):
        said.setdefault(top, []).append(stage_names.label(stage, " "))
    answers = [
        Answer(
            stage_names.class_name(record, top),
            _stages(stages) if top == image.classes[0] else ", ".join(stages),
            None if top is None else top == image.label,
        )
        for top, stages in said.items()
    ]
    return Picture(image.name, stage_names.class_name(record, image.label), image.thumbnail, tuple(answers))


def _stages(names: list[str]) -> str:
    """Of those that answer as the first one: its name, and how many more there are."""
    rest = len(names) - 1
    return names[0] + (f" and {rest} other{'s' if rest > 1 else ''}" if rest else "")
