"""Follow the same images of a validated run from the float model to every artifact.

The torch stages that the checkpoint has no logits of are computed here, artifacts' logits are those that validate kept.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.files import write_json
from pipeline.metrics.accuracy import accuracy, per_class
from pipeline.metrics.drift import agreement_matrix, most_moved, step
from pipeline.progress import Say
from pipeline.records.keys import CellKey
from pipeline.records.waterfall import Explanation, ImageRecord, WaterfallRecord, WaterfallStage
from pipeline.run import layout as files
from pipeline.run.cells import load_conversions, load_validation
from pipeline.run.facts import read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.logits import ArtifactLogits, StageLogits, load_artifact_logits, rows_of
from pipeline.training.subject import ScoredImages
from targets.codec import to_dict

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16  # images of a torch stage at once
IMAGES = 24  # kept with thumbnails


@dataclass(frozen=True)
class ScoredStage:
    """Logits [N, classes] of one stage; `sha256` of the artifact that computed them."""

    name: str
    previous: str | None
    logits: np.ndarray
    cell: CellKey | None = None
    sha256: str | None = None


def torch_stages(run: Run, reference: StageLogits, images: ScoredImages) -> list[ScoredStage]:
    """The stages of the checkpoint, and the two of its programs that it keeps no logits of.

    Raises:
        RunError: a program changed since it was written.
    """
    from pipeline.quantization.float_layers import without_rounding
    from targets.program import load_program

    def scored(what: str, program: Path, rounding: bool) -> np.ndarray:
        from pipeline.training.setting import collect_logits

        module = load_program(program).module()
        forward = module if rounding else without_rounding(module)
        return collect_logits(f"scoring {what}", forward, images, BATCH)

    deploy = scored("the deploy form", run.file(files.FLOAT_PROGRAM), rounding=True)
    trained = scored("trained weights without rounding", run.file(files.QDQ_PROGRAM), rounding=False)
    return [
        ScoredStage("official", None, reference.stages["float"]),
        ScoredStage("deploy", "official", deploy),
        ScoredStage("trained", "deploy", trained),
        ScoredStage("fake_quant", "trained", reference.stages["fake_quant"]),
        ScoredStage("qdq", "fake_quant", reference.stages["qdq"]),
    ]


def artifact_stages(run: Run, reference: StageLogits, say: Say) -> list[ScoredStage]:
    """Every artifact in every runtime whose logits are those of the file as it is now, on the reference's images."""
    by_artifact = {r.artifact: r for r in load_conversions(run) if r.outcome.status == "ok"}
    quantization = read_quantization(run)
    stages = []
    for validation in load_validation(run):
        key = validation.key
        conversion = by_artifact.get(key.artifact)
        if validation.outcome.status != "ok" or conversion is None:
            continue
        kept = load_artifact_logits(run, key)
        rows = None if kept is None else _rows(kept, reference)
        if kept is None or kept.sha256 != conversion.sha256 or rows is None:
            say(f"{key.label} is not in the waterfall: it was not validated since on these images; validate it again")
            continue
        previous = "qdq" if quantization.made(key.artifact) else "deploy"
        stages.append(ScoredStage(key.label, previous, kept.logits[rows], key, kept.sha256))
    return stages


def waterfall_of(
    run: Run,
    reference: StageLogits,
    images: ScoredImages,
    stages: Sequence[ScoredStage],
    explanation: Explanation | None = None,
) -> WaterfallRecord:
    """`stages`, the first of which is what all others are compared with, as a record."""
    logits = {stage.name: stage.logits for stage in stages}
    first = stages[0].logits
    return WaterfallRecord(
        digest=reference.digest,
        n=len(reference.labels),
        class_names=read_subject(run).classes,
        stages=tuple(
            WaterfallStage(
                name=stage.name,
                cell=stage.cell,
                previous=stage.previous,
                accuracy=accuracy(stage.logits, reference.labels),
                to_previous=None
                if stage.previous is None
                else step(logits[stage.previous], stage.logits, reference.labels),
                to_first=None if stage.previous is None else step(first, stage.logits, reference.labels),
                per_class=per_class(stage.logits, reference.labels),
            )
            for stage in stages
        ),
        agreement=agreement_matrix([stage.logits for stage in stages]),
        images=_moved(reference, images, stages),
        explanation=explanation,
        artifacts={stage.name: stage.sha256 for stage in stages if stage.sha256 is not None},
    )


def save_waterfall(run: Run, record: WaterfallRecord) -> None:
    """waterfall.json, atomically, and listed in the manifest."""
    write_json(run.path / files.WATERFALL, to_dict(record))
    run.record(files.WATERFALL)


def _moved(reference: StageLogits, images: ScoredImages, stages: Sequence[ScoredStage]) -> tuple[ImageRecord, ...]:
    found = []
    for moved in most_moved([stage.logits for stage in stages], IMAGES):
        index = images.indices[moved.row]
        found.append(
            ImageRecord(
                index=index,
                name=images.split.ids[index],
                label=int(reference.labels[moved.row]),
                classes=moved.classes,
                kl=moved.kl,
                thumbnail=thumbnail(images.split.image(index)),
            )
        )
    return tuple(found)


def _rows(kept: ArtifactLogits, reference: StageLogits) -> list[int] | None:
    """Where the reference's images are among those kept; None if one is not."""
    try:
        return rows_of(reference.indices, kept.indices)
    except KeyError:
        return None


SIDE = 96  # pixels of the longer side
QUALITY = 80  # of JPEG: about 3 kB a picture


def thumbnail(image: Image) -> str:
    """`data:image/jpeg;base64,...` of at most SIDE pixels; a smaller image keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
