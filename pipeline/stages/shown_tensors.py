"""Int8 artifacts and a few images in, how far each layer's output in them is from the QDQ program's out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline.metrics.tensor_match import Int8Tensor, Place, Power, compare, find
from pipeline.progress import progress
from pipeline.rundir import Run
from pipeline.stages.artifacts import artifact_name
from pipeline.stages.waterfall import ScoredStage
from targets import registry
from targets.devices.host import HostWorker
from targets.types import TargetError

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.qat.walk import Walk

AT_ONCE = 2  # artifacts: most of the time is the start of their workers
ByLayer = dict[str, dict[str, float | None]]


def shown_tensors(
    run: Run, walk: Walk, stages: Sequence[ScoredStage], images: Tensor, threads: int
) -> tuple[ByLayer, list[str]]:
    """SQNR in dB (None: exact) by layer and by stage, and notes on stages that show nothing.

    Args:
        images: [N, 3, H, W]
    """
    from pipeline.qat.layer_drift import output_values

    trained = [stage for stage in stages if stage.cell is not None and stage.cell.source == "qat"]
    if not trained:
        return {}, []
    ours = [
        {o.layer.name: Int8Tensor(o.scale, o.zero_point, o.values) for o in output_values(walk, image)}
        for image in images.split(1)
    ]
    found: ByLayer = {}
    notes: list[str] = []
    with (
        progress("tensors inside the artifacts", len(trained) * len(images)) as bar,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        shown = pool.map(lambda stage: _of(run, stage, images, threads), trained)
        for stage, theirs in zip(trained, shown, strict=True):
            bar.advance(len(images))
            if isinstance(theirs, str):
                notes.append(f"{stage.name}: {theirs}")
                continue
            assert stage.cell is not None
            for name, db in _sqnr(ours, theirs, registry.get(stage.cell.target).scale_rtol).items():
                found.setdefault(name, {})[stage.name] = db
            if stage.cell.target == "tflite":
                notes.append(f"{stage.name}: its tensors are those of the runtime's own kernels, without XNNPACK")
    if found:
        notes.append(f"tensors inside of artifacts: over {len(images)} images, found by scale and zero point")
    return found, notes


def _of(run: Run, stage: ScoredStage, images: Tensor, threads: int) -> list[list[Int8Tensor]] | str:
    """For each image the artifact's int8 tensors, or why there are none."""
    cell = stage.cell
    assert cell is not None
    path = run.file(artifact_name(cell.target, cell.precision, cell.source))
    rows = []
    try:
        with HostWorker() as worker:
            session = worker.open(cell.target, path, cell.runtime, threads)
            for image in images.split(1):
                tensors = session.quantized_tensors(image.numpy())
                if tensors is None:
                    return "the runtime shows no tensors inside of its delegate"
                rows.append([Int8Tensor(t.scale, t.zero_point, t.values) for t in tensors])
    except TargetError as error:
        return f"its tensors could not be read ({error})"
    return rows


def _sqnr(
    ours: Sequence[dict[str, Int8Tensor]], theirs: Sequence[Sequence[Int8Tensor]], rtol: float
) -> dict[str, float | None]:
    """By layer. Which tensor it is, and the order of its axes, is settled on the first image."""
    found = {}
    for name, tensor in ours[0].items():
        place: Place | None = find(tensor, theirs[0], rtol)
        if place is not None:
            power = Power(0.0, 0.0)
            for mine, others in zip(ours, theirs, strict=True):
                power += compare(mine[name], others[place.number], place.axes)
            found[name] = power.sqnr_db
    return found
