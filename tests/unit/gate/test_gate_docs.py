"""docs/gate.md against the program: its table of images and drops, its rules, its settings and its verdicts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.commands import load
from pipeline.gate.judge import FALSE_ALARMS
from pipeline.gate.records import VERDICTS
from pipeline.gate.rule import Limit
from pipeline.gate.rules import RULES
from pipeline.gate.settings import settings_of
from pipeline.metrics.paired import PairedDrop

DOCS = Path(__file__).resolve().parents[3] / "docs"
GATE = (DOCS / "gate.md").read_text()
FLIPS = (0.0, 0.005, 0.01, 0.02)


def row(n: int, tests: int) -> str:
    level = FALSE_ALARMS / tests
    cells = []
    for share in FLIPS:
        change = PairedDrop(n, round(n * share), round(n * share))
        found, passes = change.detectable_pp(level), change.interval_pp(1 - 2 * level)[1]
        cells.append(f"{'none' if found is None else f'{found:.2f}'} / {passes:.2f}")
    return f"| {n} | {' | '.join(cells)} |"


@pytest.mark.parametrize("tests", [1, 12])
def test_the_table_of_images_is_what_the_program_computes(tests: int) -> None:
    table = GATE.split(f"<!-- detectable: {tests} -->\n")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) >= 6
    assert table == [row(int(line.split("|")[1]), tests) for line in table]


def test_every_rule_is_in_the_document_with_its_defaults() -> None:
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", GATE, re.MULTILINE)}
    assert list(rows) == list(RULES)
    for name, rule in RULES.items():
        for key, limit in rule.limits.items():
            assert f"`{key}` {_default(limit)}" in rows[name] or f"`{key}`{_default(limit)}" in rows[name], (name, key)


def _default(limit: Limit) -> str:
    if limit.default is None:
        return ", not set"
    return "false" if limit.default is False else f"{limit.default:g}"


def test_every_verdict_is_in_the_document() -> None:
    assert set(VERDICTS) <= set(re.findall(r"^\| (\w+) \|", GATE, re.MULTILINE))


def test_the_settings_of_the_document_are_taken() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GATE, re.DOTALL)
    assert settings_of(tomllib.loads(text), {}).for_model("t2t_vit_12")["drop"].limits == {"max_pp": 1.5}


EXAMPLES = sorted((DOCS / "ci").glob("*.y*ml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_for_ci_are_yaml_and_their_commands_exist(path: Path) -> None:
    """Every `main.py COMMAND --option` of an example is one that the program has."""
    document = yaml.safe_load(path.read_text())
    assert document
    lines = re.findall(r"main\.py (\w+)(.*(?:\n +--.*)*)", path.read_text())
    assert lines
    for command, rest in lines:
        known = {option for parameter in load(command).params for option in parameter.opts}
        used = re.findall(r"(?<=\s)--[a-z-]+", rest)
        assert set(used) <= known, (command, used)


def test_the_workflow_checks_with_the_files_that_it_keeps() -> None:
    steps = yaml.safe_load((DOCS / "ci" / "edge-t2t.yml").read_text())["jobs"]["gate"]["steps"]
    (check,) = [step["run"] for step in steps if "main.py check" in step.get("run", "")]
    kept = next(step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert "--junit edge-t2t.xml" in check
    assert "edge-t2t.xml" in kept
    assert '--markdown "$GITHUB_STEP_SUMMARY"' in check
