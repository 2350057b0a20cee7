"""Find or make the control of latency figures: a MobileNetV2 run on the same data, with the same artifacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import ArtifactKey
from pipeline.run.cells import load_conversions
from pipeline.run.control import CONTROL_MODEL, LATENCY_ONLY, existing_control
from pipeline.run.facts import read_config, read_subject
from pipeline.run.folder import Run, find_run
from pipeline.stages.convert import convert_cells, source_of


def ensure_control(
    root: Path, run: Run, given: Path | None, targets: Sequence[str], say: Callable[[str], None]
) -> Run | None:
    """A control that has an artifact for each of the run's cells of `targets`.

    It is made by calibration alone where there is none.

    Returns:
        None if the run is MobileNetV2 itself.

    Raises:
        UsageError: `given` is a run of another model.
    """
    if run.model == CONTROL_MODEL:
        return None
    control = find_run(root, given) if given is not None else existing_control(root, run)
    if control is not None and control.model != CONTROL_MODEL:
        raise UsageError(f"--control {control.id} is a run of {control.model}: give one of {CONTROL_MODEL}")
    if control is None:
        say(f"no run of {CONTROL_MODEL} on these images: making one by calibration, for its latency only")
        control = _make(root, run, say)
    have = {(c.target, c.precision) for c in load_conversions(control) if c.outcome.status == "ok"}
    missing = [_cell(c) for c in _ok(run) if c.target in targets and (c.target, c.precision) not in have]
    if missing:
        say(f"converting {len(missing)} artifacts of the control {control.id}")
        convert_cells(control, list(dict.fromkeys(missing)), say)
    return control


def _ok(run: Run) -> list[ConversionRecord]:
    return [c for c in load_conversions(run) if c.outcome.status == "ok"]


def _cell(record: ConversionRecord) -> ArtifactKey:
    return ArtifactKey(record.target, record.precision, source_of(record.precision))


def _make(root: Path, run: Run, say: Callable[[str], None]) -> Run:
    from pipeline.quantization.qat import quantize, start

    like = read_config(run)
    config = RunConfig(
        model=CONTROL_MODEL,
        data=like.data,
        weights="none",
        epochs=0,
        calibration_images=like.calibration_images,
        limit_val=1,
        skip_bad=like.skip_bad,
        img_size=read_subject(run).model_config.input_size[1],
        seed=like.seed,
        device="cpu",
        threads=like.threads,
    )
    control, subject = start(config, root)
    control.record(facts={LATENCY_ONLY: True})
    quantize(control, config, subject, say, latest=False)
    return control
