"""The model card: what the files are, how good and how fast they were found, and what was not measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePath

from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import HOST
from pipeline.records.report import Report, RunRecord
from pipeline.report import values as v
from pipeline.report.cells import Cell, run_cells
from pipeline.report.tables.accuracy import overview
from pipeline.report.tables.beside import beside_float
from pipeline.report.tables.table import Table, escaped, table_lines
from targets.devices.address import parse

NAMES_SHOWN = 20
#: Of the packages that an app brings along; the model's own has to be told.
LICENCES = {
    "tflite": "LiteRT: Apache License 2.0",
    "executorch": "ExecuTorch: BSD 3-Clause; XNNPACK in it: BSD 3-Clause",
    "coreml": "Core ML: part of Apple's systems",
}


def model_card(
    report: Report, files: Sequence[ConversionRecord], classes: Sequence[str], licence: str, replayed: Collection[str]
) -> str:
    """Markdown.

    Args:
        files: that the app folder holds.
        licence: of the model, as told; empty: nobody told.
        replayed: names of the files that gave golden answers here.
    """
    run = report.runs[0]
    kept = [record for record in run.conversions if record in files or record.precision == "fp32"]
    about = replace(report, runs=(replace(run, conversions=tuple(kept)), *report.runs[1:]))
    names = ", ".join(map(escaped, classes[:NAMES_SHOWN]))
    more = f" and {len(classes) - NAMES_SHOWN} more" if len(classes) > NAMES_SHOWN else ""
    tables = [table for table in (_files(files), beside_float(about), overview(about)) if table is not None]
    return "\n".join(
        [
            f"# {escaped(run.model)}: model card",
            "",
            f"Sorts a picture into {len(classes)} classes: {names}{more}. The files take RGB pixels of 0 to 255 and "
            "give one probability for each class. They know no other class: whatever they see, they name one of these.",
            "",
            *map(table_lines, tables),
            "## How it was made",
            "",
            *(f"- {line}" for line in _made(run, report.generated_utc)),
            "",
            "## Not measured",
            "",
            *(f"- {line}" for line in not_measured(run, files, replayed)),
            "",
            "## Licences",
            "",
            f"- the model: {escaped(licence) or 'not told. Ask whoever made the weights and the training images'}",
            *(f"- {LICENCES[target]}" for target in dict.fromkeys(f.target for f in files) if target in LICENCES),
            "",
        ]
    )


def file_name(record: ConversionRecord) -> str:
    """Of an artifact, in the app folder."""
    return PurePath(str(record.path)).name


def _files(files: Sequence[ConversionRecord]) -> Table:
    rows = tuple(
        (
            v.words(file_name(record)),
            v.words(record.artifact.variant),
            v.measured(record.facts, lambda facts: v.megabytes(facts.size_bytes)),
            v.words(record.sha256),
        )
        for record in files
    )
    return Table("Files", ("File", "Precision", "Size", "sha256"), rows, label_columns=2)


def _made(run: RunRecord, generated_utc: str) -> list[str]:
    shown = {name: run.provenance[name] for name in ("commit", "processor", "system") if name in run.provenance}
    return [
        f"run {escaped(run.run_id)}, {run.created_utc}; this card {generated_utc}",
        f"weights: {escaped(run.weights.source)}, sha256 {run.weights.sha256 or 'not recorded'}",
        f"{run.parameters:,} parameters",
        f"preprocessing: {escaped(run.preprocessing)}",
        f"images: {escaped(run.data.name)}, {run.data.n_train} for training, {run.data.n_val} for validation (digest "
        f"{run.data.val_digest[:12]})",
        "; ".join(f"{name}: {escaped(str(value))}" for name, value in shown.items()),
        "every figure, image by image: `report` of the run",
    ]


def not_measured(run: RunRecord, files: Sequence[ConversionRecord], replayed: Collection[str]) -> list[str]:
    """What a reader might think was measured, and was not."""
    cells = [cell for cell in run_cells(run) if cell.conversion in files]
    lines = []
    for record in files:
        own = [cell for cell in cells if cell.file == record.artifact]
        name = f"{record.target} {record.artifact.variant}"
        if not any(cell.accuracy for cell in own):
            simulated = any(cell.simulations for cell in own)
            found = "accuracy and golden answers are a simulation's" if simulated else "it has no accuracy"
            lines.append(f"{name}: no runtime answered the validation images; {found}")
        if not any(_is_timed(cell) for cell in own):
            lines.append(f"{name}: not timed")
        if file_name(record) not in replayed:
            lines.append(f"{name}: golden answers are missing, for no runtime here could give them")
    places = [cell.key.device for cell in cells if cell.key is not None]
    if not any(parse(place).kind == "adb" for place in places):
        processor = run.provenance.get("processor", "a processor that was not recorded")
        lines.append(f"on a phone: nothing. {HOST.capitalize()} above is {escaped(str(processor))}")
    lines.append("the Swift files were not compiled; the Kotlin files were not built into an app")
    return lines


def _is_timed(cell: Cell) -> bool:
    return cell.latency is not None and cell.latency.outcome.status == "ok"
