"""Which int8 layers of a QDQ program rounding hurts, on a few images: in the program itself and inside of artifacts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from pipeline.drift.walk import NOTHING, Values, Walk
from pipeline.metrics.accuracy import correct
from pipeline.metrics.drift import kl_divergence
from pipeline.metrics.tensor_match import Int8Tensor, Power, compare, find
from pipeline.quantization.float_layers import Int8Layer
from pipeline.records.keys import ArtifactKey, CellKey
from targets import registry
from targets.boundary import Boundary
from targets.types import Session, TargetError


@dataclass(frozen=True)
class LayerDrift:
    """SQNR of one layer's output.

    Attributes:
        alone_db: if this layer's weight, input and output alone are rounded; None where that changes nothing.
        chained_db: in the QDQ program, where all layers before it are rounded too.
    """

    layer: Int8Layer
    alone_db: float | None
    chained_db: float | None


@dataclass(frozen=True)
class KeptFloat:
    """The QDQ program with one layer in float: distance to the program without any rounding, and right answers."""

    layer: Int8Layer
    kl_mean: float
    top1: int


@dataclass(frozen=True)
class FloatSearch:
    """Of the QDQ program as it is, of the program without rounding, and of each layer kept float, best first."""

    kl_mean: float
    qdq_top1: int
    trained_top1: int
    kept: tuple[KeptFloat, ...]


def layer_drift(walk: Walk, batches: Sequence[Tensor], advance: Callable[[int], None]) -> tuple[LayerDrift, ...]:
    """One pass, with and without rounding side by side; worst `alone_db` first.

    Args:
        advance: called with the number of images after each batch.
    """
    layers = walk.qdq.layers
    alone, chained = ({layer.name: Power(0.0, 0.0) for layer in layers} for _ in range(2))
    begun = {layer.node: layer for layer in layers}
    computed = {layer.last: layer for layer in layers}
    rounded = {layer.last if layer.output is None else layer.output.dequantize[0]: layer for layer in layers}
    for images in batches:
        plain, int8 = walk.begin(images), walk.begin(images)
        outputs: dict[str, Tensor] = {}  # with the layer's own rounding, until its clamp is computed

        def compare(
            node: Node, plain: Values = plain, int8: Values = int8, outputs: dict[str, Tensor] = outputs
        ) -> None:
            if node in begun:
                outputs[begun[node].name] = _alone(walk, begun[node], plain)
            if node in computed:
                alone[computed[node].name] += _power(plain[node], outputs.pop(computed[node].name))
            if node in rounded:
                chained[rounded[node].name] += _power(plain[node], int8[node])

        with torch.no_grad():
            for i in range(len(walk.nodes) - 1):
                walk.step(int8, i, NOTHING)
                walk.step(plain, i, walk.everything, compare)
        advance(len(images))
    found = (LayerDrift(layer, alone[layer.name].sqnr_db, chained[layer.name].sqnr_db) for layer in layers)
    return tuple(sorted(found, key=lambda d: math.inf if d.alone_db is None else d.alone_db))


def float_search(
    walk: Walk, batches: Sequence[Tensor], labels: np.ndarray, advance: Callable[[int], None]
) -> FloatSearch:
    """Leave one layer out of the int8 ones, each in turn.

    The network is run once up to each layer, and from there on again without that layer's rounding.

    Args:
        advance: called with 1 after each layer of each batch.

    Raises:
        ValueError: logits are not finite.
    """
    dropped = {layer.name: walk.qdq.kept_float(layer) for layer in walk.qdq.layers}
    starts: dict[int, list[Int8Layer]] = {}
    for layer in walk.qdq.layers:
        starts.setdefault(min(walk.position[node] for node in dropped[layer.name]), []).append(layer)
    trained, qdq = [], []
    logits: dict[str, list[Tensor]] = {layer.name: [] for layer in walk.qdq.layers}
    with torch.no_grad():
        for images in batches:
            trained.append(walk.logits(images, walk.everything))
            values = walk.begin(images)
            for i in range(len(walk.nodes) - 1):
                for layer in starts.get(i, ()):
                    logits[layer.name].append(walk.finish(dict(values), i, dropped[layer.name]))
                    advance(1)
                walk.step(values, i, NOTHING)
            qdq.append(walk.finish(values, len(walk.nodes) - 1, NOTHING))
    reference = _numpy(trained)

    def score(rows: list[Tensor]) -> tuple[float, int]:
        kl = float(kl_divergence(reference, _numpy(rows)).mean())
        if not math.isfinite(kl):
            raise ValueError("logits are not finite")
        return kl, int(correct(_numpy(rows), labels).sum())

    kept = [KeptFloat(layer, *score(logits[layer.name])) for layer in walk.qdq.layers]
    kl_mean, qdq_top1 = score(qdq)
    top1 = int(correct(reference, labels).sum())
    return FloatSearch(kl_mean, qdq_top1, top1, tuple(sorted(kept, key=lambda k: (k.kl_mean, k.layer.name))))


def output_values(walk: Walk, image: Tensor) -> dict[str, Int8Tensor]:
    """[1, 3, H, W] -> what each layer gives in the QDQ program, where its output is rounded, by its name."""
    rounded = {layer.output.quantize: layer for layer in walk.qdq.layers if layer.output is not None}
    found: dict[str, Int8Tensor] = {}
    values = walk.begin(image)

    def keep(node: Node) -> None:
        if node in rounded and (output := rounded[node].output) is not None:
            scale, zero_point = float(walk.qdq.scale_of(output)), int(walk.qdq.zero_point_of(output))
            array = walk.quantized(output, values[node]).cpu().numpy()
            found[rounded[node].name] = Int8Tensor(scale, zero_point, array)

    with torch.no_grad():
        for i in range(len(walk.nodes) - 1):
            walk.step(values, i, NOTHING, keep)
    return found


def _alone(walk: Walk, layer: Int8Layer, plain: Values) -> Tensor:
    """The layer's output with its own rounding, from the values of the program without any."""
    source, weight = layer.node.all_input_nodes[:2]
    rounded = {source: walk.rounded(layer.input, plain[source]), weight: walk.rounded(layer.weight, plain[weight])}
    output = walk.call(layer.node, {**plain, **rounded})
    if layer.last is not layer.node:
        output = walk.call(layer.last, {layer.node: output})
    return output if layer.output is None else walk.rounded(layer.output, output)


def _power(reference: Tensor, other: Tensor) -> Power:
    """Of a tensor and of what is missing from it, summed in float64."""
    squares = (float((part * part).sum(dtype=torch.float64)) for part in (reference, reference - other))
    return Power(*squares)


def _numpy(rows: list[Tensor]) -> np.ndarray:
    return torch.cat(rows).float().cpu().numpy()


ByLayer = dict[str, float | None]


class ShownTensors:
    """Looks into one session after the other, on the same few images [N, 3, H, W].

    Args:
        pixels: uint8 [N, H, W, 3] that they are made of.
        boundaries: what each file with the QDQ program's scales takes; others are left alone.
    """

    def __init__(self, walk: Walk, images: Tensor, pixels: np.ndarray, boundaries: Mapping[ArtifactKey, Boundary]):
        self._pixels, self._boundaries = pixels, boundaries
        self._ours = [output_values(walk, image) for image in images.split(1)]
        self._seen: dict[CellKey, ByLayer | str] = {}

    def look(self, key: CellKey, session: Session) -> None:
        """Compare what the session shows."""
        boundary = self._boundaries.get(key.artifact)
        if boundary is None:
            return
        theirs = []
        try:
            for image in boundary.feed(self._pixels):
                tensors = session.quantized_tensors(image[None])
                if tensors is None:
                    self._seen[key] = "the runtime shows no tensors inside of its delegate"
                    return
                theirs.append([Int8Tensor(t.scale, t.zero_point, t.values) for t in tensors])
        except TargetError as error:
            self._seen[key] = f"its tensors could not be read ({error})"
            return
        self._seen[key] = _sqnr(self._ours, theirs, registry.get(key.target).scale_rtol)

    def of_layer(self, name: str) -> ByLayer:
        """SQNR in dB (None: exact) of a layer's output, by the label of the cell that shows it."""
        seen = {key.label: found for key, found in self._seen.items() if not isinstance(found, str)}
        return {label: found[name] for label, found in seen.items() if name in found}

    @property
    def notes(self) -> list[str]:
        """What the figures are of, and why a session shows nothing."""
        notes = [f"{key.label}: {why}" for key, why in self._seen.items() if isinstance(why, str)]
        shown = [key for key, found in self._seen.items() if not isinstance(found, str)]
        notes += [f"{key.label}: {note}" for key in shown if (note := registry.get(key.target).shown_tensors)]
        if shown:
            images = len(self._pixels)
            notes.append(f"tensors inside of artifacts: over {images} images, found by scale and zero point")
        return notes


def _sqnr(ours: Sequence[dict[str, Int8Tensor]], theirs: Sequence[Sequence[Int8Tensor]], rtol: float) -> ByLayer:
    """By layer. Which tensor it is, and the order of its axes, is settled on the first image."""
    found: ByLayer = {}
    for name, tensor in ours[0].items():
        match = find(tensor, theirs[0], rtol)
        if match is not None:
            power = Power(0.0, 0.0)
            for mine, others in zip(ours, theirs, strict=True):
                power += compare(mine[name], others[match.number], match.axes)
            found[name] = power.sqnr_db
    return found
