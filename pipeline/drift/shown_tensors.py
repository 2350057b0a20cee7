"""Open sessions of int8 artifacts in, how far each layer's output in them is from the QDQ program's out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.metrics.tensor_match import Int8Tensor, Place, Power, compare, find
from pipeline.records.cells import CellKey
from targets import registry
from targets.devices.device import DeviceSession
from targets.types import TargetError

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.drift.walk import Walk

ByLayer = dict[str, float | None]


class ShownTensors:
    """Looks into one session after the other, on the same few images [N, 3, H, W]."""

    def __init__(self, walk: Walk, images: Tensor):
        from pipeline.drift.layers import output_values

        self._images = images
        self._ours = [
            {o.layer.name: Int8Tensor(o.scale, o.zero_point, o.values) for o in output_values(walk, image)}
            for image in images.split(1)
        ]
        self._seen: dict[CellKey, ByLayer | str] = {}

    def look(self, key: CellKey, session: DeviceSession) -> None:
        """Compare what the session shows; files with other scales than the QDQ program's are left alone."""
        if key.source != "qat":
            return
        theirs = []
        try:
            for image in self._images.split(1):
                tensors = session.quantized_tensors(image.numpy())
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
            images = len(self._images)
            notes.append(f"tensors inside of artifacts: over {images} images, found by scale and zero point")
        return notes


def _sqnr(ours: Sequence[dict[str, Int8Tensor]], theirs: Sequence[Sequence[Int8Tensor]], rtol: float) -> ByLayer:
    """By layer. Which tensor it is, and the order of its axes, is settled on the first image."""
    found: ByLayer = {}
    for name, tensor in ours[0].items():
        place: Place | None = find(tensor, theirs[0], rtol)
        if place is not None:
            power = Power(0.0, 0.0)
            for mine, others in zip(ours, theirs, strict=True):
                power += compare(mine[name], others[place.number], place.axes)
            found[name] = power.sqnr_db
    return found
