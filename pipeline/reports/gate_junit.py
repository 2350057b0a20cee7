"""A gate's result in, JUnit XML out: one test suite a cell, one test case a rule.

Regressed is a failure; missing and refused are errors, since nothing was tested; inconclusive is a failure unless it
was asked to pass, then it is skipped, like a warning and like what was not measured.
"""

from __future__ import annotations

from xml.etree import ElementTree as xml

from pipeline.reports.gate_record import CellVerdict, Finding, GateResult
from pipeline.reports.gate_values import detail, verdict_words
from pipeline.reports.values import printable


def render(result: GateResult) -> str:
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
