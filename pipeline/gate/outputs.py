"""The result of `check` as files and on the terminal: JSON, JUnit XML, Markdown, tables.

JUnit has one test suite a cell and one test case a rule. Regressed is a failure; missing and refused are errors, since
nothing was tested; inconclusive is a failure unless it was asked to pass, then it is skipped, like a warning and like
what was not measured.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as xml

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from pipeline.gate.baseline import CellFacts, RunFacts
from pipeline.gate.records import CellVerdict, Finding, GateResult
from pipeline.gate.tables import KINDS, detail, open_findings, tables, verdict_words, verdicts
from pipeline.records.codec import to_dict
from pipeline.records.keys import CellKey
from pipeline.report import values as v
from pipeline.report.markdown import table_lines
from pipeline.report.tables.printed import STYLES, console, table_renderable
from pipeline.report.tables.table import Table
from pipeline.report.values import NONE_HERE, NOT_MEASURED, Value, printable


def as_junit(result: GateResult) -> str:
    """The text of the file."""
    root = xml.Element("testsuites", name=printable(f"edge-t2t check {result.model}"))
    for cell in result.cells:
        _suite(root, cell, result)
    for parent in (root, *root):
        cases = parent.findall(".//testcase")
        parent.set("tests", str(len(cases)))
        for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            parent.set(name, str(sum(case.find(kind) is not None for case in cases)))
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: xml.Element, cell: CellVerdict, result: GateResult) -> None:
    suite = xml.SubElement(root, "testsuite", name=printable(cell.key.label))
    for found in cell.findings:
        classname = printable(f"{result.model} {cell.key.label}").replace(".", "_")  # a dot is a package to readers
        case = xml.SubElement(suite, "testcase", classname=classname, name=found.rule, time="0")
        kind = element_of(found, result)
        if kind is not None:
            message = f"{verdict_words(found)}: {found.sentence}"
            xml.SubElement(
                case, kind, message=printable(message), type=found.verdict or "not measured"
            ).text = printable("\n".join(filter(None, (found.sentence, detail(found), found.next_step))))
        else:
            xml.SubElement(case, "system-out").text = printable(f"{found.sentence}\n{detail(found)}".strip())


def element_of(found: Finding, result: GateResult) -> str | None:
    """failure, error, skipped, or None for a passed test case."""
    if found.verdict in ("pass", "new"):
        return None
    if found.verdict is None or found.severity == "warn":
        return "skipped"
    if found.verdict == "inconclusive":
        return "failure" if result.inconclusive == "fail" else "skipped"
    return "failure" if found.verdict == "regressed" else "error"


SCHEMA_VERSION = 1


def as_json(result: GateResult, exit_code: int) -> str:
    """The text of the file."""
    data = to_dict(result)
    for cell, record in zip(data["cells"], result.cells, strict=True):
        cell["verdict"] = record.verdict
    body = {"schema_version": SCHEMA_VERSION, "verdict": result.verdict, "exit_code": exit_code, **data}
    return json.dumps(body, indent=2, allow_nan=False) + "\n"


def as_markdown(result: GateResult) -> str:
    """GitHub-flavoured Markdown; names from outside can neither break a table nor smuggle in markup."""
    title = f"# Gate: {result.verdict or 'nothing was judged'}\n"
    return "\n".join([title, *map(table_lines, tables(result))])


def show(result: GateResult) -> None:
    """The table of verdicts; below it each finding that is more than a pass, worst first, with what to do."""
    out = console()
    out.print(table_renderable(verdicts(result)))
    for cells, found in open_findings(result):
        out.print(_finding(cells, found))


def _finding(cells: Sequence[CellKey], found: Finding) -> Group:
    head = Text(f"\n{verdict_words(found)}", STYLES[KINDS[found.verdict]])
    head.append(printable(f"  {found.rule}: {'; '.join(key.label for key in cells)}"), "bold")
    lines = filter(None, (found.sentence, detail(found), found.next_step and f"→ {found.next_step}"))
    return Group(head, *(Padding(Text(printable(line)), (0, 0, 0, 4)) for line in lines))


Column = Callable[[CellFacts], str | None]


def table(old: RunFacts | None, new: RunFacts) -> Table:
    """One row a cell; "old → new" where a figure moves, one figure where it does not."""
    before = {cell.key: cell for cell in old.cells} if old else {}
    after = {cell.key: cell for cell in new.cells}
    rows = tuple(
        (v.words(key.label), *(_both(before.get(key), after.get(key), column) for column in COLUMNS.values()))
        for key in {**before, **after}
    )
    title = f"baseline of {new.model}: run {new.run_id}" + (f" in place of {old.run_id}" if old else "")
    return Table(title, ("cell", *COLUMNS), rows, notes=_notes(old, new))


def _top1(cell: CellFacts) -> str | None:
    return None if cell.scored is None else f"{cell.scored.top1} of {cell.scored.n}"


def _same(cell: CellFacts) -> str | None:
    return None if cell.scored is None else f"{cell.scored.same} of {cell.scored.n}"


def _size(cell: CellFacts) -> str | None:
    return None if cell.file is None else f"{cell.file.size_bytes / 1e6:.3f} MB"


def _undelegated(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.undelegated is None else str(cell.file.undelegated)


def _scales(cell: CellFacts) -> str | None:
    return None if cell.file is None or cell.file.scales_total is None else str(cell.file.scales_lost)


def _latency(cell: CellFacts) -> str | None:
    if cell.timing is None or cell.timing.to_control is None:
        return None
    return f"{statistics.median(cell.timing.to_control):.3f}×"


COLUMNS: dict[str, Column] = {
    "outcome": lambda cell: cell.outcome.status,
    "top-1": _top1,
    "agreement": _same,
    "size": _size,
    "undelegated": _undelegated,
    "scales lost": _scales,
    "× MobileNetV2": _latency,
}


def _both(old: CellFacts | None, new: CellFacts | None, column: Column) -> Value:
    texts = [None if cell is None else column(cell) or "not measured" for cell in (old, new)]
    before, after = texts
    if before is None or before == after:  # a first baseline, a new cell, or no change
        return NONE_HERE if after is None else NOT_MEASURED if after == "not measured" else Value(after)
    return Value(f"{before}\n→ {after or 'gone'}")


def _notes(old: RunFacts | None, new: RunFacts) -> tuple[str, ...]:
    if old is None:
        return ()
    notes = []
    if old.images != new.images or old.num_classes != new.num_classes:
        notes.append(f"other images: {old.images.name}, {old.images.n_val} → {new.images.name}, {new.images.n_val}")
    if old.weights != new.weights:
        notes.append(f"other float weights: {old.weights.sha256 or 'no file'} → {new.weights.sha256 or 'no file'}")
    return tuple(notes)
