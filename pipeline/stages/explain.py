"""A validated run in, waterfall.json with the explanation of its loss out: which stage, and which layers, it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.metrics.drift import Drift, drift
from pipeline.progress import progress
from pipeline.qat import checkpoint as files
from pipeline.qat.checkpoint import StageLogits
from pipeline.reports.waterfall_record import Explanation, FloatLayer, LayerRecord, WaterfallRecord
from pipeline.rundir import Run
from pipeline.stages.scored_images import ScoredImages, scored_images
from pipeline.stages.shown_tensors import shown_tensors
from pipeline.stages.validate import load_logits_subset
from pipeline.stages.waterfall import ScoredStage, artifact_stages, save_waterfall, torch_stages, waterfall_of

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.qat.float_layers import QdqGraph

BATCH = 8  # images of the search at once
IMAGES = 16  # default of the search
SHOWN = 4  # images whose tensors inside of artifacts are read: millions of values


def explain_run(
    run: Run, limit: int | None, explain_images: int, threads: int, say: Callable[[str], None]
) -> WaterfallRecord:
    """Compute and write the waterfall of what `validate` kept.

    Args:
        limit: of the images, as of `validate`.
        explain_images: of the layers, evenly spread over these.
        threads: of a runtime whose tensors are read.

    Raises:
        RunError: the images are not those of the checkpoint, or a file of it changed.
    """
    reference = load_logits_subset(run, limit)
    images = scored_images(run, reference)
    stages = [*torch_stages(run, reference, images), *artifact_stages(run, reference, say)]
    rows = np.linspace(0, len(reference.labels) - 1, min(explain_images, len(reference.labels))).round().astype(int)
    explanation = explanation_of(run, reference, images, stages, rows.tolist(), threads, say)
    record = waterfall_of(run, reference, images, stages, explanation)
    save_waterfall(run, record)
    return record


def explanation_of(
    run: Run,
    reference: StageLogits,
    images: ScoredImages,
    stages: Sequence[ScoredStage],
    rows: Sequence[int],
    threads: int,
    say: Callable[[str], None],
) -> Explanation | None:
    """Of the images at `rows`; None, and a line that says why, where logits are not finite."""
    from pipeline.qat.float_layers import QdqGraph
    from pipeline.qat.layer_drift import float_search, layer_drift
    from pipeline.qat.walk import Walk
    from targets.program import load_program

    walk = Walk(QdqGraph(load_program(run.file(files.QDQ_PROGRAM)).module()))
    layers = walk.qdq.layers
    batches = list(images.batches(BATCH, rows))
    with progress("SQNR of layers", len(rows)) as bar:
        drifts = layer_drift(walk, batches, bar.advance)
    try:
        with progress("leaving one layer in float", len(layers) * len(batches), "layers") as bar:
            search = float_search(walk, batches, reference.labels[list(rows)], bar.advance)
    except ValueError as error:
        say(f"no explanation by layers: {error}")
        return None
    tensors, notes = shown_tensors(run, walk, stages, batches[0][:SHOWN], threads)
    return Explanation(
        images=len(rows),
        qdq_top1=search.qdq_top1,
        trained_top1=search.trained_top1,
        kl_mean=search.kl_mean,
        layers=tuple(
            LayerRecord(d.layer.name, d.layer.kind, d.alone_db, d.chained_db, tensors.get(d.layer.name, {}))
            for d in drifts
        ),
        kept_float=tuple(FloatLayer(k.layer.name, k.kl_mean, k.top1) for k in search.kept),
        notes=(*notes, *_bias_notes(walk.qdq, reference, batches, stages, rows)),
    )


def _bias_notes(
    qdq: QdqGraph, reference: StageLogits, batches: Sequence[Tensor], stages: Sequence[ScoredStage], rows: Sequence[int]
) -> list[str]:
    """How much nearer each int8 artifact is to the QDQ program once that has its biases as the runtimes hold them."""
    import torch

    from pipeline.qat.layer_drift import rounded_biases
    from pipeline.qat.walk import Walk

    walk = Walk(qdq, rounded_biases(qdq))
    with torch.no_grad():
        with_int32 = torch.cat([walk.logits(images) for images in batches]).numpy()
    notes = []
    for stage in stages:
        if stage.cell is not None and stage.cell.source == "qat":
            logits = stage.logits[list(rows)]
            before, after = drift(reference.stages["qdq"][list(rows)], logits), drift(with_int32, logits)
            notes.append(
                f"{stage.name}: SQNR to the QDQ program {_decibels(before)}; to the QDQ program with biases rounded "
                f"to int32, as int8 runtimes hold them, {_decibels(after)} ({len(rows)} images)"
            )
    return notes


def _decibels(found: Drift) -> str:
    if found.exact:
        return "exact"
    return "not measured" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
