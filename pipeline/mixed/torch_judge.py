"""A trained QDQ program and names of float layers in, images lost and a ranking of layers out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import TrainingError
from pipeline.metrics.paired import paired_drop_of_logits
from pipeline.records.mixed import QDQ, CellDrop, RankedLayer, Trial
from pipeline.run.logits import StageLogits, evenly
from pipeline.training.subject import ScoredImages

if TYPE_CHECKING:
    from torch.export import ExportedProgram

RANK_BATCH = 8  # images of the ranking at once


def cell_drop(name: str, logits: np.ndarray, reference: StageLogits, size_bytes: int | None = None) -> CellDrop:
    """[N, classes] against the float model's logits of the same images."""
    paired = paired_drop_of_logits(reference.stages["float"], logits, reference.labels)
    return CellDrop(name, paired.n, paired.lost, paired.gained, size_bytes)


class TorchJudge:
    """Computes the program with any of its layers in float, bit for bit as if it had been written so."""

    def __init__(self, program: ExportedProgram, reference: StageLogits, images: ScoredImages):
        from pipeline.drift.walk import Walk
        from pipeline.quantization.float_layers import QdqGraph

        self._walk = Walk(QdqGraph(program.module()))
        self._reference, self._images = reference, images

    @property
    def n(self) -> int:
        """Images that are scored."""
        return len(self._reference.labels)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the int8 layers, in the order of the program."""
        return tuple(dict.fromkeys(layer.module for layer in self._walk.qdq.layers))

    def named(self, names: Iterable[str]) -> tuple[str, ...]:
        """`names`, all of which are layers.

        Raises:
            UsageError: one is not, with the nearest name.
        """
        from pipeline.quantization.float_layers import named_layers

        return tuple(dict.fromkeys(layer.module for layer in named_layers(self._walk.qdq, names)))

    def parameters(self, names: Iterable[str]) -> int:
        """Numbers in the weights of the layers called so."""
        weights = {layer.module: layer.weight.source for layer in self._walk.qdq.layers}
        return sum(int(self._walk.attribute(weights[name]).numel()) for name in names)

    def trial(self, float_layers: tuple[str, ...]) -> Trial:
        """Over all images; the all-int8 program was scored when it was written."""
        from pipeline.quantization.float_layers import named_layers
        from pipeline.training.setting import collect_logits

        if not float_layers:
            return Trial("torch", (), (cell_drop(QDQ, self._reference.stages["qdq"], self._reference),), None)
        start, walk = time.monotonic(), self._walk
        off = walk.qdq.kept_float(*named_layers(walk.qdq, float_layers))
        logits = collect_logits(
            f"scoring {len(float_layers)} float layers", lambda batch: walk.logits(batch, off), self._images
        )
        return Trial("torch", float_layers, (cell_drop(QDQ, logits, self._reference),), time.monotonic() - start)

    def ranking(self, count: int) -> tuple[RankedLayer, ...]:
        """What each layer alone in float leaves of the KL divergence on `count` images; the best first.

        Top-1 of so few images would tell most layers apart by chance or not at all.

        Raises:
            TrainingError: logits that are not finite.
        """
        from pipeline.drift.layers import float_search
        from pipeline.progress import progress

        rows = list(evenly(self.n, count))
        batches = list(self._images.batches(RANK_BATCH, rows))
        try:
            with progress("leaving one layer in float", len(self._walk.qdq.layers) * len(batches), "layers") as bar:
                search = float_search(self._walk, batches, self._reference.labels[rows], bar.advance)
        except ValueError as error:
            raise TrainingError(
                f"layers of the QDQ program cannot be ranked: {error}; train or calibrate it anew"
            ) from None
        best: dict[str, float] = {}
        for kept in search.kept:  # a module that is called twice is there twice, with the same figure
            best.setdefault(kept.layer.module, kept.kl_mean)
        return tuple(RankedLayer(name, kl) for name, kl in best.items())
