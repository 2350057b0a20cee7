"""Columns over rows make a table; what was not measured says so; lists are cut short with how many more there are."""

from __future__ import annotations

import pytest

from pipeline.report import values as v
from pipeline.report.tables.table import Column, Columns, Table, as_text
from targets.words import first, plural

COLUMNS: Columns[dict[str, float]] = (
    Column("Name", lambda row: row["name"]),
    Column("Time", lambda row: row.get("ms"), v.milliseconds),
    Column("Why", lambda row: v.NONE_HERE),
)


def test_a_column_renders_its_figure_and_none_is_not_measured() -> None:
    table = Table.of("Times", COLUMNS, [{"name": 1, "ms": 2.5}, {"name": 2}])
    assert table.header == ("Name", "Time", "Why")
    assert table.rows[0] == (v.words("1"), v.milliseconds(2.5), v.NONE_HERE)
    assert table.rows[1][1] == v.NOT_MEASURED


def test_a_figure_of_zero_was_measured() -> None:
    assert v.measured(0, v.count).text == "0"


def test_rows_that_do_not_fit_the_header_are_refused() -> None:
    with pytest.raises(ValueError, match="2 columns"):
        Table("t", ("a", "b"), ((v.words("1"),),))


def test_text_between_tables_is_printed_without_markup_and_control_characters() -> None:
    printed = as_text(["[bold]a\x1b[31m", Table.of("Times", COLUMNS, [{"name": 1}])])
    assert printed.startswith("[bold]a\N{REPLACEMENT CHARACTER}[31m\n\nTimes\n")


def test_lists_and_plurals() -> None:
    assert first(("a", "b"), 2) == "a, b"
    assert first(("a", "b", "c", "d"), 2) == "a, b and 2 more"
    assert first((), 2) == ""
    assert [plural(count, "model") for count in (0, 1, 2)] == ["0 models", "1 model", "2 models"]
