"""The table of schemes in; it in the terminal, and as Markdown for docs/convert.md, out."""

from __future__ import annotations

from targets import registry
from targets.schemes import ALIASES, Support
from targets.types import PRECISIONS, Precision

MADE, NOT = "yes", "no"


def show() -> None:
    """On stdout: which target is made in which precision, then how or why not, line by line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    targets = registry.everyone()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("precision", *registry.variants()):
        table.add_column(name, no_wrap=True)
    for precision in PRECISIONS:
        table.add_row(_name(precision), *(_short(target.schemes[precision]) for target in targets))
    console = Console()
    console.print(table)
    for precision in PRECISIONS:
        print(f"\n{_name(precision)}")
        for target in targets:
            print(f"  {target.name}: {_words(target.schemes[precision])}")


def markdown() -> str:
    """The same table with its words in the cells."""
    targets = registry.everyone()
    lines = [f"| precision | {' | '.join(registry.variants())} |", "|---" * (len(targets) + 1) + "|"]
    for precision in PRECISIONS:
        cells = " | ".join(_words(target.schemes[precision]) for target in targets)
        lines.append(f"| `{precision}`{_alias(precision)} | {cells} |")
    return "\n".join(lines)


def _short(support: Support) -> str:
    return MADE if support.made else NOT


def _words(support: Support) -> str:
    groups = f" (`--group-size` {', '.join(map(str, support.group_sizes))})" if support.group_sizes else ""
    return f"{_short(support)}: {support.words}{groups}"


def _name(precision: Precision) -> str:
    return f"{precision}{_alias(precision).replace('`', '')}"


def _alias(precision: Precision) -> str:
    names = [f"`{alias}`" for alias, meant in ALIASES.items() if meant == precision]
    return f" ({', '.join(names)})" if names else ""
