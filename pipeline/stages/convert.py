"""Conversion of a run: targets and precisions in, published artifacts and one ConversionRecord a cell out.

Each cell is converted in a worker process of its own, read back and run in a second, fresh one, and only then moved
into place. A cell that fails leaves what was published before untouched and never stops the others.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config import Wishes
from pipeline.errors import UsageError
from pipeline.files import publish, sha256_of
from pipeline.options import options_of
from pipeline.progress import Say
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, ArtifactKey, Outcome, Source
from pipeline.run import layout as files
from pipeline.run.cells import save_conversion
from pipeline.run.facts import read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.layout import artifact_name
from targets import registry
from targets.boundary import Boundary
from targets.match import ScaleMatch, match_scales
from targets.types import (
    PRECISIONS,
    STATIC,
    GraphFacts,
    PackageOptions,
    Precision,
    QuantParams,
    TargetError,
    Unavailable,
)
from targets.words import plural
from targets.worker.host import HostWorker

MID_GREY = 128


def plan_cells(
    targets: Sequence[str], precisions: Sequence[Precision], from_float: bool, say: Say
) -> list[ArtifactKey]:
    """All combinations that exist; why the others do not is said. What `int8` comes from: see source_of.

    Raises:
        UsageError: none of them exists.
    """
    cells, missing = [], []
    for target in targets:
        for precision in precisions:
            if reason := registry.get(target).schemes.why_not(precision):
                missing.append(f"{reason} (all: convert --list-schemes)")
            else:
                cells.append(ArtifactKey(target, precision, source_of(precision, from_float)))
    if not cells:
        raise UsageError("; ".join(missing))
    for line in missing:
        say(line)
    return cells


def baseline_of(target: str) -> ArtifactKey:
    """The float32 file that a target's other files are compared with."""
    return ArtifactKey(target, "fp32", "float")


def source_of(precision: Precision, from_float: bool = False) -> Source:
    """What a file of this precision is made from; "qat" is the QDQ program of the run, if it was trained or not.

    Args:
        from_float: int8 by calibration alone, not from the trained program. Of w8a16 there is no trained one.
    """
    if precision not in STATIC:
        return "float"
    return "ptq" if from_float or precision != "int8" else "qat"


#: Wishes that need no room in a file's format.
_ANYWHERE = ("group_size", "tensor_input")


def check_wishes(wishes: Wishes, cells: Sequence[ArtifactKey], say: Say) -> None:
    """Refuse what none of the cells can do, before any work; tell which targets an option is ignored for.

    Raises:
        UsageError: no target with room for an option, a file that cannot have it, or one that no file would use.
    """
    _check_group_size(wishes.group_size, cells)
    rooms: dict[tuple[str, ...], list[str]] = {}
    for name, declared in options_of(Wishes).items():
        if name not in _ANYWHERE and getattr(wishes, name):
            room = tuple(target.name for target in registry.everyone() if name in target.options)
            rooms.setdefault(room, []).append(declared.flag)
    for room, given in rooms.items():
        _check_room(room, given, wishes, cells, say)


def _check_room(
    room: tuple[str, ...], given: list[str], wishes: Wishes, cells: Sequence[ArtifactKey], say: Say
) -> None:
    """
    Args:
        room: the targets whose files have room for the options `given`.
    """
    options, plural = ", ".join(given), len(given) > 1
    belong = f"{'belong' if plural else 'belongs'} to {', '.join(room)}"
    concerned = [cell for cell in cells if cell.target in room]
    others = list(dict.fromkeys(cell.target for cell in cells if cell.target not in room))
    if not concerned:
        raise UsageError(f"{options} {belong} alone: leave out, or add --target {room[0]}")
    for cell in concerned:
        if reason := registry.get(cell.target).refusal(cell.precision, wishes.of_the_file()):
            raise UsageError(reason)
    for name in dict.fromkeys(cell.target for cell in concerned):
        precisions = [cell.precision for cell in concerned if cell.target == name]
        if reason := registry.get(name).unused(precisions, wishes.of_the_file()):
            raise UsageError(reason)
    if others:
        say(f"{options} {belong}, and {'say' if plural else 'says'} nothing to {', '.join(others)}")


def _check_group_size(size: int | None, cells: Sequence[ArtifactKey]) -> None:
    """
    Raises:
        UsageError: none of the files has groups, or one of those that have cannot have this size.
    """
    if size is None:
        return
    grouped = [cell for cell in cells if registry.get(cell.target).schemes[cell.precision].group_sizes]
    if not grouped:
        made = ", ".join(
            f"{precision} of {target.name}"
            for precision in PRECISIONS
            for target in registry.everyone()
            if target.schemes[precision].group_sizes
        )
        raise UsageError(f"--group-size {size}: no file asked for has groups; those that have are {made}")
    for cell in grouped:
        try:
            registry.get(cell.target).schemes.group_size(cell.precision, size)
        except TargetError as error:
            raise UsageError(f"--group-size {size}: {error.cause}") from error


def convert_cells(
    run: Run, cells: Sequence[ArtifactKey], say: Say, wishes: Wishes | None = None
) -> tuple[ConversionRecord, ...]:
    """Convert every cell; failures are recorded, not raised.

    Args:
        wishes: what else the files shall have, where their format has room for it (see check_wishes).

    Raises:
        RunError: the run has no checkpoint, or its files changed.
    """
    cells = as_made(run, cells)
    programs = {kind: _program(run, kind, say) for kind in dict.fromkeys(map(_kind, cells))}
    scales = {kind: {} if kind == "float" else _scales(path) for kind, path in programs.items()}
    options = options_by_target(run, wishes or Wishes(), cells)
    records = []
    for cell in cells:
        record = _convert(run, cell, programs[_kind(cell)], scales[_kind(cell)], options[cell])
        say(_line(record))
        records.append(record)
    return tuple(records)


def options_by_target(run: Run, wishes: Wishes, cells: Sequence[ArtifactKey]) -> dict[ArtifactKey, PackageOptions]:
    """The wishes with mean, standard deviation and classes of the run, as far as each cell's format has room for them.

    Raises:
        RunError: the run has no record of them, or it changed.
    """
    subject = read_subject(run)
    config, takes_image = subject.model_config, not wishes.tensor_input
    everything = replace(
        wishes.of_the_file(),
        image_input=takes_image,
        mean=config.mean,
        std=config.std,
        class_labels=subject.classes if takes_image else (),
        crop_pct=config.crop_pct if takes_image else None,
        interpolation=config.interpolation if takes_image else "",
    )
    found = {}
    for cell in cells:
        target = registry.get(cell.target)
        kept = {field: getattr(everything, field) for field in target.options}
        size = wishes.group_size if target.schemes[cell.precision].group_sizes else None
        found[cell] = PackageOptions(**kept, group_size=size)
    return found


def as_made(run: Run, cells: Sequence[ArtifactKey]) -> list[ArtifactKey]:
    """The cells by the names of their files: the QDQ program of a run that trained nothing is one of calibration."""
    if not any(cell.source == "qat" for cell in cells):
        return list(cells)
    own = read_quantization(run).source
    return list(dict.fromkeys(replace(cell, source=own) if cell.source == "qat" else cell for cell in cells))


def _kind(cell: ArtifactKey) -> str:
    """Cells of one kind are made from one program: "float", "qat", "ptq", "ptq w8a16"."""
    return f"ptq {cell.precision}" if cell.source == "ptq" and cell.precision != "int8" else cell.source


def _program(run: Run, kind: str, say: Say) -> Path:
    """The exported program of a kind, its sha256 compared with the manifest."""
    if kind == "float":
        return run.file(files.FLOAT_PROGRAM)
    if kind == read_quantization(run).source:
        return run.file(files.QDQ_PROGRAM)
    from pipeline.quantization.calibration import ptq_program

    return ptq_program(run, say, activation_bits=16 if kind == "ptq w8a16" else 8)


def _scales(program: Path) -> Mapping[str, QuantParams]:
    from targets.program import load_program, trained_quant_params

    return trained_quant_params(load_program(program))


def _convert(
    run: Run, cell: ArtifactKey, program: Path, scales: Mapping[str, QuantParams], options: PackageOptions
) -> ConversionRecord:
    name = artifact_name(cell)
    final = run.path / name
    final.parent.mkdir(exist_ok=True)
    config = read_subject(run).model_config
    # A format without room for an image input has none for mean and std either.
    whole = replace(options, mean=config.mean, std=config.std)
    boundary = registry.get(cell.target).boundary(whole, config.input_size[1:])
    facts: GraphFacts | None = None
    match: ScaleMatch | None = None
    outcome, load_check = OK, "not reached"
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=final.parent, ignore_cleanup_errors=True) as workplace:
        made = Path(workplace) / final.name
        try:
            facts, load_check = _make(run, cell, program, made, options, boundary)
        except TargetError as error:
            outcome = Outcome.of(error)
        seconds = time.monotonic() - start
        if facts is not None:
            if scales:
                match = match_scales(scales, facts.quant_params, registry.get(cell.target).scale_rtol)
            publish(made, final)
    record = ConversionRecord(
        model=run.model,
        target=cell.target,
        precision=cell.precision,
        source=cell.source,
        outcome=outcome,
        path=name if facts else None,
        sha256=sha256_of(final) if facts else None,
        seconds=seconds,
        facts=facts.stored if facts else None,
        scales_total=match.total if match else None,
        scales_found=match.found if match else None,
        scales_missing=match.missing if match else (),
        load_check=load_check,
        boundary=boundary,
    )
    if facts is not None or not run.has(name):  # an earlier conversion stays published, with its own record
        save_conversion(run, record, name)
    return record


def _make(
    run: Run, cell: ArtifactKey, program: Path, output: Path, options: PackageOptions, boundary: Boundary
) -> tuple[GraphFacts, str]:
    """Convert in one process, read back and run in another."""
    digest = sha256_of(program)
    metadata = {"model": run.model, "run": run.id, "program_sha256": digest, "source": cell.source}
    if "class_labels" in registry.get(cell.target).options:
        metadata["classes"] = json.dumps(read_subject(run).classes)
    with HostWorker() as worker:
        worker.convert(cell.target, program, digest, cell.precision, output, metadata, options)
    with HostWorker() as fresh:
        facts = fresh.inspect(cell.target, output)
        return facts, _load_check(fresh, cell.target, output, boundary)


def _load_check(worker: HostWorker, target: str, path: Path, boundary: Boundary) -> str:
    """Run the file once in its first runtime that is here, or in a simulation of it; says what was done.

    Raises:
        TargetError: it does not load or run, or gives numbers that are not finite.
    """
    runtimes = registry.get(target).runtimes
    simulated = registry.get(target).simulated
    reasons = []
    for runtime in (runtimes[0], *simulated[:1]):
        try:
            session = worker.open(target, path, runtime, 1)
        except Unavailable as error:
            reasons.append(error.cause)
            continue
        logits = session.infer(boundary.feed(np.full((1, *boundary.size, 3), MID_GREY, np.uint8)))
        if not np.isfinite(logits).all():
            raise TargetError("run", f"the logits of a mid-grey image are not finite: {logits.ravel()[:5].tolist()}")
        if runtime in simulated:
            return f"read back and simulated by {runtime} in a fresh process; not run here ({reasons[0]})"
        return f"loaded and run by {runtime} in a fresh process"
    return f"read back from disk in a fresh process; not run here ({reasons[0]})"


def _line(record: ConversionRecord) -> str:
    """One line for the reader."""
    what = record.artifact.label
    if record.facts is None:
        return f"{what}: {record.outcome.status} at {record.outcome.stage}: {record.outcome.reason}"
    parts = [f"{record.facts.size_bytes / 1e6:.2f} MB"]
    if record.precision == "int8":
        parts.append(f"{record.facts.int8_weights} int8 and {record.facts.float_weights} float weights")
    elif record.precision not in ("fp32", "fp16") and record.facts.weights_by_dtype:
        counts = [f"{count} {dtype}" for dtype, count in record.facts.weights_by_dtype.items()]
        parts.append(f"{' and '.join(counts)} weights")
    if record.scales_total is not None:
        parts.append(f"{record.scales_found} of {record.scales_total} trained scales found")
    if record.facts.partitions is not None:
        outside = sum((record.facts.fallback or {}).values())
        parts.append(f"{plural(record.facts.partitions, 'partition')}, {plural(outside, 'operator')} outside")
    return f"{what}: {', '.join(parts)}; {record.load_check} ({record.seconds:.0f} s)"
