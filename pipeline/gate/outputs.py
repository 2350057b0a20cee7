"""The result of `check` as files and on the terminal: JSON, JUnit XML, Markdown, tables.

JUnit has one test suite a cell and one test case a rule. Regressed is a failure; missing and refused are errors, since
nothing was tested; inconclusive is a failure unless it was asked to pass, then it is skipped, like a warning and like
what was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from pipeline.gate.records import CellVerdict, Finding, GateResult
from pipeline.gate.tables import KINDS, detail, findings, open_findings, verdict_words, verdicts
from pipeline.records.keys import CellKey
from pipeline.report.tables.table import STYLES, print_tables, table_lines
from pipeline.report.values import printable
from targets.codec import to_dict

SCHEMA_VERSION = 1


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
    return "\n".join([title, *map(table_lines, filter(None, (verdicts(result), findings(result))))])


def show(result: GateResult) -> None:
    """The table of verdicts; below it each finding that is more than a pass, worst first, with what to do."""
    print_tables([verdicts(result), *(_finding(cells, found) for cells, found in open_findings(result))])


def _finding(cells: Sequence[CellKey], found: Finding) -> Group:
    head = Text(f"\n{verdict_words(found)}", STYLES[KINDS[found.verdict]])
    head.append(printable(f"  {found.rule}: {'; '.join(key.label for key in cells)}"), "bold")
    lines = filter(None, (found.sentence, detail(found), found.next_step and f"→ {found.next_step}"))
    return Group(head, *(Padding(Text(printable(line)), (0, 0, 0, 4)) for line in lines))
