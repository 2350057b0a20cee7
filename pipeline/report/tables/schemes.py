"""The table of schemes: on the terminal, and as Markdown for docs/convert.md."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.report.tables.table import Column, Columns, Table, print_tables
from targets import registry
from targets.schemes import ALIASES, SCHEMES, Support
from targets.types import Precision

Scheme = tuple[Precision, Mapping[str, Support]]


def show() -> None:
    """Print which target is made in which precision, then how or why not, line by line."""

    def made(target: str) -> Column[Scheme]:
        return Column(target, lambda scheme: "yes" if scheme[1][target].made else "no")

    targets = registry.variants()
    columns: Columns[Scheme] = (Column("precision", lambda scheme: _name(scheme[0])), *map(made, targets))
    print_tables([Table.of("Precisions by target", columns, SCHEMES.items())])
    for precision, by_target in SCHEMES.items():
        print("\n".join([f"\n{_name(precision)}", *(f"  {name}: {_words(by_target[name])}" for name in targets)]))


def markdown() -> str:
    """The same table with its words in the cells."""
    targets = registry.variants()
    lines = [f"| precision | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for precision, by_target in SCHEMES.items():
        cells = " | ".join(_words(by_target[target]) for target in targets)
        lines.append(f"| `{precision}`{_alias(precision)} | {cells} |")
    return "\n".join(lines)


def _words(support: Support) -> str:
    groups = f" (`--group-size` {', '.join(map(str, support.group_sizes))})" if support.group_sizes else ""
    return f"{'yes' if support.made else 'no'}: {support.words}{groups}"


def _name(precision: Precision) -> str:
    return f"{precision}{_alias(precision).replace('`', '')}"


def _alias(precision: Precision) -> str:
    names = [f"`{alias}`" for alias, meant in ALIASES.items() if meant == precision]
    return f" ({', '.join(names)})" if names else ""
