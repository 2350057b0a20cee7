"""A run's waterfall in, the images that some stage answers otherwise than the first one out, with what each says."""

from __future__ import annotations

from pipeline.reports import stage_names
from pipeline.reports.figure import Answer, Figure, Picture
from pipeline.reports.schema import Report
from pipeline.reports.waterfall_record import ImageRecord, WaterfallRecord

LEAD = (
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
    return Figure("Flipped images", LEAD, pictures=tuple(pictures), notes=tuple(notes)) if pictures else None


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
