"""What a table of a report is: a title, a header and rows of values; terminal, Markdown and HTML only lay it out."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.values import Value


@dataclass(frozen=True)
class Table:
    """`label_columns` columns of words on the left, figures on the right; `notes` stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    label_columns: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"table {self.title!r} has rows that do not fit its {len(self.header)} columns")


def grouped(notes: list[tuple[str, str]]) -> tuple[str, ...]:
    """(label, note) pairs -> one line for each note, with all labels that it holds for in front."""
    labels: dict[str, list[str]] = {}
    for label, note in notes:
        labels.setdefault(note, []).append(label)
    return tuple(f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in labels.items())


def reasons(table: Table) -> tuple[str, ...]:
    """Why values of the table are missing: "tflite int8 qat: failed at load: ..."."""
    found = []
    for row in table.rows:
        label = " ".join(value.text for value in row[: table.label_columns]).replace("\n", " ")
        found += [(label, value.full) for value in row if value.detail]
    return grouped(found)
