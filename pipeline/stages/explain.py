"""A validated run in, waterfall.json with the explanation of its loss out: which stage, and which layers, it is in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.drift.layers import ShownTensors
from pipeline.drift.waterfall import ScoredStage, artifact_stages, save_waterfall, torch_stages, waterfall_of
from pipeline.metrics.drift import step
from pipeline.progress import Say, progress
from pipeline.records.keys import CellKey
from pipeline.records.waterfall import Explanation, FloatLayer, LayerRecord, WaterfallRecord
from pipeline.run import layout as files
from pipeline.run.cells import boundary_of, load_conversions
from pipeline.run.facts import MovedNorm, read_quantization
from pipeline.run.folder import Run
from pipeline.run.logits import evenly, load_logits_subset
from pipeline.training.subject import scored_images
from targets.types import Session

BATCH = 8  # images of the search at once
SHOWN = 4  # images whose tensors inside of artifacts are read: millions of values
#: Logits from probabilities differ by less where the logits are equal; steps of int8 logits are far larger.
LOGARITHM = 1e-4
MOST_MOVED = 5  # BatchNorms that are named


class Explainer:
    """Begun before `validate`, which hands it each open session to look into, and finished after it.

    Args:
        limit: of the images, as of `validate`.
        explain_images: of the layers, evenly spread over these.

    Raises:
        RunError: the images are not those of the checkpoint, or a file of it changed.
    """

    def __init__(self, run: Run, limit: int | None, explain_images: int):
        from pipeline.drift.walk import Walk
        from pipeline.quantization.float_layers import QdqGraph
        from targets.program import load_program

        self._run, self._quantization = run, read_quantization(run)
        self._reference = load_logits_subset(run, limit)
        self._images = scored_images(run, self._reference)
        self._rows = list(evenly(len(self._reference.labels), explain_images))
        self._walk = Walk(QdqGraph(load_program(run.file(files.QDQ_PROGRAM)).module()))
        self._batches = list(self._images.batches(BATCH, self._rows))
        self._boundaries = {
            record.artifact: boundary_of(run, record)
            for record in load_conversions(run)
            if record.outcome.status == "ok" and self._quantization.made(record.artifact)
        }
        images, pixels = self._batches[0][:SHOWN], next(self._images.pixels(SHOWN, self._rows))
        self._shown = ShownTensors(self._walk, images, pixels, self._boundaries)

    def look(self, key: CellKey, session: Session) -> None:
        """Into the tensors of an artifact, where its runtime shows them."""
        self._shown.look(key, session)

    def finish(self, say: Say) -> WaterfallRecord:
        """Compute and write the waterfall of what `validate` kept."""
        run, reference = self._run, self._reference
        stages = [*torch_stages(run, reference, self._images), *artifact_stages(run, reference, say)]
        record = waterfall_of(run, reference, self._images, stages, self._explanation(stages, say))
        save_waterfall(run, record)
        return record

    def _explanation(self, stages: Sequence[ScoredStage], say: Say) -> Explanation | None:
        """None, and a line that says why, where logits are not finite."""
        from pipeline.drift.layers import float_search, layer_drift

        walk, batches, rows = self._walk, self._batches, self._rows
        with progress("SQNR of layers", len(rows)) as bar:
            drifts = layer_drift(walk, batches, bar.advance)
        try:
            with progress("leaving one layer in float", len(walk.qdq.layers) * len(batches), "layers") as bar:
                search = float_search(walk, batches, self._reference.labels[rows], bar.advance)
        except ValueError as error:
            say(f"no explanation by layers: {error}")
            return None
        return Explanation(
            images=len(rows),
            qdq_top1=search.qdq_top1,
            trained_top1=search.trained_top1,
            kl_mean=search.kl_mean,
            layers=tuple(
                LayerRecord(d.layer.name, d.layer.kind, d.alone_db, d.chained_db, self._shown.of_layer(d.layer.name))
                for d in drifts
            ),
            kept_float=tuple(FloatLayer(k.layer.name, k.kl_mean, k.top1) for k in search.kept),
            notes=(
                *moved_norms_note(self._quantization.moved_norms, stages, self._reference.labels),
                *self._shown.notes,
                *self._equal(stages),
            ),
        )

    def _equal(self, stages: Sequence[ScoredStage]) -> list[str]:
        """How much of the QDQ program each of its artifacts computes to the last bit.

        Of one that gives probabilities, to what their logarithms are good for.
        """
        qdq, notes = self._reference.stages["qdq"], []
        for stage in stages:
            boundary = None if stage.cell is None else self._boundaries.get(stage.cell.artifact)
            if boundary is not None:
                by_logarithm = boundary.gives == "probabilities"
                equal = np.abs(stage.logits - qdq) <= (LOGARITHM if by_logarithm else 0)
                same, how = equal.all(axis=1), f" to {LOGARITHM:g}" if by_logarithm else ""
                notes.append(
                    f"{stage.name}: all logits of {same.sum()} of {len(same)} images are those of the QDQ program"
                    f"{how}, {100 * equal.mean():.2f} % of the logits of all"
                )
        return notes


def moved_norms_note(moved: Sequence[MovedNorm], stages: Sequence[ScoredStage], labels: np.ndarray) -> list[str]:
    """Names the BatchNorms that QAT moved, if the step from the deploy form to the trained weights loses accuracy.

    It loses if fewer answers are right, or as many and its KL divergence is the largest of the torch stages.
    """
    logits = {stage.name: stage.logits for stage in stages}
    steps = {
        stage.name: step(logits[stage.previous], stage.logits, labels)
        for stage in stages
        if stage.previous is not None and stage.cell is None
    }
    change, kl = steps["trained"].change, steps["trained"].kl_mean
    largest = kl is not None and kl > 0 and kl >= max(other.kl_mean or 0 for other in steps.values())
    if not moved or change.lost < change.gained or (change.lost == change.gained and not largest):
        return []
    layers = ", ".join(
        f"{norm.name} (mean {norm.mean_shift:.2g} standard deviations, variance a factor of "
        f"{math.exp(norm.variance_log_ratio):.2g})"
        for norm in moved[:MOST_MOVED]
    )
    return [
        f"trained: top-1 drops by {change.drop_pp:.2f} pp ({change.lost} lost, {change.gained} gained of {change.n}), "
        f"KL {'not measured' if kl is None else f'{kl:.2g} nats'}. QAT moved the running statistics of {len(moved)} "
        f"BatchNorm layers, most in {layers}. --batch-norm-freeze 0 keeps those of the float model"
    ]
