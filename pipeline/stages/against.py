"""What a benchmark times a run's files against: float32 files of the same model, and a run of another one.

They are found, or made where this device can time them: a file that no runtime here opens is not worth its conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.progress import Say
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import ArtifactKey
from pipeline.run.cells import artifact_path, load_conversions
from pipeline.run.facts import CONTROL_MODEL, LATENCY_ONLY, existing_control, read_config, read_subject
from pipeline.run.folder import Run, find_run
from pipeline.stages.convert import baseline_of, convert_cells, source_of
from pipeline.stages.devices import Place
from targets.types import TargetError
from targets.words import plural, suggest

FLOAT, NONE = "float", "none"


@dataclass(frozen=True)
class Against:
    """What was asked for.

    Attributes:
        floating: an int8 file takes turns with the float32 file of the same model.
        control: CONTROL_MODEL, for its newest run on the same images or one that is made; else a run; None: nothing.
    """

    floating: bool = True
    control: str | None = CONTROL_MODEL


def against_of(names: Sequence[str] | None) -> Against:
    """What the command line names; nothing named: float and MobileNetV2.

    Raises:
        UsageError: `none` beside something else, or more than one other model.
    """
    if not names:
        return Against()
    if NONE in names and len(names) > 1:
        raise UsageError(f"--against {NONE} beside {', '.join(n for n in names if n != NONE)}: leave one of them out")
    others = list(dict.fromkeys(name for name in names if name not in (FLOAT, NONE)))
    if len(others) > 1:
        raise UsageError(f"--against {' and '.join(others)}: one model can take turns beside {FLOAT}, give one of them")
    return Against(FLOAT in names, others[0] if others else None)


def prepare(
    root: Path, run: Run, against: Against, targets: Sequence[str], compute_units: str, on: Place, say: Say
) -> Run | None:
    """Find or make what the run's files of `targets` are timed against on a device, as far as it can time them.

    Returns:
        The run of the other model; None if none was asked for or can be timed, or the run is MobileNetV2 itself.

    Raises:
        UsageError: the run that was asked for is this one, or its images have another size.
    """
    other = None if against.control in (None, CONTROL_MODEL) else _named(root, str(against.control))
    if other is not None:
        _check(run, other)
    if not on.device.times:
        return None
    opened: dict[str, bool] = {}

    def timed(record: ConversionRecord) -> bool:
        if record.target not in opened:
            opened[record.target] = _opens(run, record, compute_units, on)
        return opened[record.target]

    if against.floating:
        int8 = [c for c in ok(run) if c.target in targets and c.precision == "int8"]
        have = {c.artifact for c in ok(run)}
        _convert(run, [key for c in int8 if (key := baseline_of(c.target)) not in have and timed(c)], say)
    files = [c for c in ok(run) if c.target in targets]
    if against.control == CONTROL_MODEL and run.model != CONTROL_MODEL:
        other = existing_control(root, run)
        if other is None and any(map(timed, files)):
            say(f"no run of {CONTROL_MODEL} on these images: making one by calibration, for its latency only")
            other = _make(root, run, say)
    if other is not None:
        there = {(c.target, c.precision) for c in ok(other)}
        missing = [c for c in files if (c.target, c.precision) not in there and timed(c)]
        _convert(other, [ArtifactKey(c.target, c.precision, source_of(c.precision)) for c in missing], say)
    return other


def ok(run: Run) -> list[ConversionRecord]:
    """The files of a run that were published."""
    return [c for c in load_conversions(run) if c.outcome.status == "ok"]


def _named(root: Path, name: str) -> Run:
    """
    Raises:
        UsageError: that is no run, nor another word that --against takes.
    """
    try:
        return find_run(root, Path(name))
    except UsageError as error:
        words = (FLOAT, CONTROL_MODEL, NONE)
        hint = suggest(name, words)
        if not hint:
            raise
        raise UsageError(f"--against {name!r} is not a run, nor one of {', '.join(words)}.{hint}") from error


def _check(run: Run, other: Run) -> None:
    if other.id == run.id:
        raise UsageError(f"--against {other.id} is the run itself: give another run, {FLOAT} or {CONTROL_MODEL}")
    sizes = [read_subject(one).model_config.input_size for one in (run, other)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--against {other.id} takes images of {list(sizes[1])}, this run of {list(sizes[0])}: files are timed on "
            "the same images, give a run of that size"
        )


def _opens(run: Run, record: ConversionRecord, compute_units: str, on: Place) -> bool:
    """Whether one of the device's runtimes opens the run's own file."""
    for runtime in on.device.runtimes(record.target, compute_units):
        try:
            with on.device.worker() as worker:
                worker.open(record.target, artifact_path(run, record), runtime, 1)
                return True
        except TargetError:  # there is no such runtime, or it refuses the file: the benchmark says which
            continue
    return False


def _convert(run: Run, cells: Iterable[ArtifactKey], say: Say) -> None:
    wanted = list(dict.fromkeys(cells))
    if wanted:
        say(f"converting {plural(len(wanted), 'file')} of {run.id} to be timed against")
        convert_cells(run, wanted, say)


def _make(root: Path, run: Run, say: Say) -> Run:
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
