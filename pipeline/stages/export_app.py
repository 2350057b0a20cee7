"""Everything that an app needs of a run, in one folder: files, labels, preprocessing, code, and golden answers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.app.card import file_name, model_card
from pipeline.app.code import render
from pipeline.app.golden import Golden, image_name, pick, prepared_name, replay
from pipeline.app.preparation import Preparation
from pipeline.errors import UsageError
from pipeline.files import publish
from pipeline.progress import Say, progress
from pipeline.records.conversion import ConversionRecord
from pipeline.report.collect import collect_report
from pipeline.run.cells import artifact_path, boundary_of, cell_key, chosen
from pipeline.run.facts import read_quantization, read_subject
from pipeline.run.folder import Run
from pipeline.run.layout import APP
from pipeline.run.logits import load_logits
from pipeline.training.subject import scored_images
from targets import registry
from targets.types import Precision, Unavailable
from targets.worker.host import HostWorker

LABELS, PREPROCESSING, CARD, GOLDEN = "labels.txt", "preprocessing.json", "model_card.md", "golden/golden.json"


def export_app(run: Run, root: Path, targets: Sequence[str], precision: Precision, licence: str, say: Say) -> Path:
    """Write the app folder of a run in place of an earlier one; returns its path.

    Args:
        root: folder of the runs, for what stands beside this one in its report.
        licence: of the model, for its card; empty: not told.

    Raises:
        UsageError: no such files, files that take tensors, or preprocessing that no code here does.
        RunError: the run did not finish, or something of it changed.
        CellsFailedError: a file answers a golden image otherwise than the program that it was made from.
    """
    subject = read_subject(run)
    preparation = Preparation.of(subject.model_config)
    if broken := [name for name in subject.classes if len(name.splitlines()) != 1]:
        raise UsageError(f"the class {broken[0]!r} is not one line, as {LABELS} needs it")
    records = _files(run, targets, precision)
    report = collect_report(run, root)
    golden, photos = _golden(run, records[0])
    answers = {file_name(record): _answers(run, record, golden.pixels) for record in records}
    golden.check(answers)
    replayed = [name for name, found in answers.items() if found]
    with tempfile.TemporaryDirectory(prefix=f".{APP}-", dir=run.path, ignore_cleanup_errors=True) as workplace:
        folder = Path(workplace) / APP
        for record in records:
            _copy(artifact_path(run, record), folder / file_name(record))
        texts = {
            LABELS: "".join(f"{name}\n" for name in subject.classes),
            PREPROCESSING: _json(preparation.as_json()),
            CARD: model_card(report, records, subject.classes, licence, replayed),
            GOLDEN: _json(golden.as_json(answers)),
            **render(run.model, preparation, {record.target: file_name(record) for record in records}),
        }
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        _write_images(folder / Path(GOLDEN).parent, photos, golden.pixels)
        publish(folder, run.path / APP)
    run.record(APP)
    for cell in (cell for found in answers.values() for cell in found):
        say(f"{cell}: {len(golden.rows)} of {len(golden.rows)} golden answers are those of the program")
    return run.path / APP


def _files(run: Run, targets: Sequence[str], precision: Precision) -> list[ConversionRecord]:
    """One for each target.

    Raises:
        UsageError: there is none, or one takes tensors.
    """
    made = [r for r in chosen(run, targets, "export") if r.precision == precision]
    if not made:
        raise UsageError(
            f"run {run.id} has no {precision} file for {', '.join(targets)}: "
            f"`python main.py convert --run {run.id} --precision {precision}` makes them"
        )
    own = read_quantization(run).source  # the files of calibration alone stand beside trained ones
    best = {r.target: r for r in sorted(made, key=lambda r: r.source == own)}
    for record in best.values():
        if boundary_of(run, record).dtype != "uint8":
            again = f"`python main.py convert --run {run.id}` without --tensor-input"
            can = "image_input" in registry.get(record.target).options
            raise UsageError(
                f"{record.path} takes normalised floats, and an app gets files that take pictures: "
                f"{again if can else 'choose another target'}"
            )
    return list(best.values())


def _golden(run: Run, record: ConversionRecord) -> tuple[Golden, list[np.ndarray]]:
    """The images, and their photos: uint8 RGB of any size.

    Raises:
        RunError: the images are no longer those that were scored.
    """
    stored = load_logits(run)
    stage = "qdq" if read_quantization(run).made(record.artifact) else "float"
    rows = pick(stored, stage)
    images = scored_images(run, stored)
    pixels = np.concatenate(list(images.pixels(len(rows), rows)))
    photos = [np.asarray(images.split.image(images.indices[row])) for row in rows]
    labels = tuple(int(stored.labels[row]) for row in rows)
    return Golden(rows, pixels, stored.stages[stage][list(rows)], read_subject(run).classes, labels), photos


def _answers(run: Run, record: ConversionRecord, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
    """By the label of each runtime that is here, probabilities [N, classes]; of a simulation where there is none.

    Raises:
        TargetError: the file does not run.
    """
    target, boundary = registry.get(record.target), boundary_of(run, record)
    found: dict[str, np.ndarray] = {}
    runtimes = (*target.runtimes, *target.simulated[:1])
    with progress(f"replaying {file_name(record)}", len(runtimes), "runtimes") as bar:
        for runtime in runtimes:
            if runtime in target.runtimes or not found:
                try:
                    with HostWorker() as worker:
                        session = worker.open(record.target, artifact_path(run, record), runtime, 1)
                        found[cell_key(record, runtime).label] = replay(session, boundary, pixels)
                except Unavailable:
                    pass
            bar.advance()
    return found


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination)


def _write_images(folder: Path, photos: Sequence[np.ndarray], pixels: np.ndarray) -> None:
    """Lossless."""
    from PIL import Image

    for number, (photo, prepared) in enumerate(zip(photos, pixels, strict=True), 1):
        Image.fromarray(photo).save(folder / image_name(number))
        Image.fromarray(prepared).save(folder / prepared_name(number))
