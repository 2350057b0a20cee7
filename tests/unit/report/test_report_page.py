"""The page with a waterfall: its figures, its policy, and how a real browser takes it."""

from __future__ import annotations

import html as markup
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_up_report import report_of, terminal_text
from made_up_waterfall import made_up_explained_report, made_up_waterfall

from pipeline.records.report import Report, report_to_json
from pipeline.report import page as html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 1280)

# Runs first in the page: what the browser complains about.
LISTEN = """
window.complaints = [];
addEventListener("error", (event) => complaints.push(`${event.message || "a resource did not load"}`), true);
addEventListener("securitypolicyviolation", (event) => complaints.push(`${event.violatedDirective} blocked`));
"""
# Runs last: sorts the overview by its size, opens everything, measures, and tells the page around it.
PROBE = """
const table = document.querySelector("#overview table"), column = 2;
const keys = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort ?? null);
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
const head = table.tHead.rows[0].cells[column], button = head.querySelector("button");
const found = { width: innerWidth, original: keys(), names: names(), sorts: [] };
for (let press = 0; press < 3; press++) {
  button.click();
  found.sorts.push({ aria: head.getAttribute("aria-sort"), keys: keys() });
}
table.tHead.rows[0].cells[0].querySelector("button").click();
found.sortedNames = names();
const list = document.querySelector("#overview select");
list.value = `${column} -1`;
list.dispatchEvent(new Event("change"));
found.listed = keys();
button.focus();
found.focusable = document.activeElement === button || getComputedStyle(button).visibility === "hidden";
document.querySelectorAll("details").forEach((details) => (details.open = true));
found.scrollWidth = document.documentElement.scrollWidth;
found.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
found.unnamed = [...document.querySelectorAll("svg")].filter((svg) => !svg.getAttribute("aria-label")).length;
setTimeout(() => parent.postMessage({ ...found, complaints }, "*"), 200);
"""


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up_explained_report()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html.render(report)


@pytest.fixture(scope="module")
def seen(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What a browser finds in the page, by the width of its window; one start for all."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("page")
    allowed = " ".join(f"'{html.csp_hash(script)}'" for script in (LISTEN, PROBE))
    probed = page.replace("script-src ", f"script-src {allowed} ", 1)
    probed = probed.replace("<link rel", f"<script>{LISTEN}</script><link rel", 1)
    probed = probed.replace("</body>", f"<script>{PROBE}</script></body>", 1)
    (folder / "probed.html").write_text(probed)
    frames = "".join(f'<iframe src="probed.html" width="{width}" height="800"></iframe>' for width in WIDTHS)
    (folder / "around.html").write_text(
        "<style>iframe { border: 0 }</style><pre></pre><script>"
        'const all = []; addEventListener("message", (event) => { all.push(event.data);'
        ' document.querySelector("pre").textContent = JSON.stringify(all); });'
        f"</script>{frames}"
    )
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = "--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [
        *(browser, *root, *options.split(), "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--window-size=1700,900"),
        *("--dump-dom", f"file://{folder / 'around.html'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    text = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert text, f"the page told nothing; {browser} says: {done.stderr[-2000:]}"
    assert "CONSOLE" not in done.stderr, done.stderr
    return {found["width"]: found for found in json.loads(markup.unescape(text[1]))}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_loads_nothing_and_complains_of_nothing(width: int, seen: dict[int, dict[str, Any]]) -> None:
    assert seen[width]["complaints"] == []
    assert seen[width]["loaded"] == []
    assert seen[width]["unnamed"] == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_never_wider_than_its_window(width: int, seen: dict[int, dict[str, Any]]) -> None:
    assert seen[width]["scrollWidth"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_press_on_a_header_sorts_up_then_down_then_as_reported(width: int, seen: dict[int, dict[str, Any]]) -> None:
    original = seen[width]["original"]
    figures = sorted(float(key) for key in original if key is not None)
    missing = [None] * original.count(None)
    assert len(set(figures)) > 2
    assert missing
    up, down, back = seen[width]["sorts"]
    assert (up["aria"], down["aria"], back["aria"]) == ("ascending", "descending", None)
    assert [key and float(key) for key in up["keys"]] == [*figures, *missing]
    assert [key and float(key) for key in down["keys"]] == [*figures[::-1], *missing]
    assert back["keys"] == original
    assert seen[width]["listed"] == down["keys"], "the list that a narrow screen shows sorts alike"
    assert seen[width]["sortedNames"] == sorted(seen[width]["names"])
    assert seen[width]["focusable"]


def test_the_policy_allows_the_one_script_of_the_page(page: str) -> None:
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.split(maxsplit=1) for rule in markup.unescape(policy[1]).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'{html.csp_hash(scripts[0])}'"
    assert rules["img-src"] == "data:"


def test_every_figure_is_there_with_its_n(page: str, report: Report) -> None:
    record = report.runs[0].waterfall
    assert record is not None
    sections = dict(re.findall(r'<section id="([^"]*)">(.*?)</section>', page, flags=re.DOTALL))
    for anchor in ("where-the-accuracy-goes", "agreement", "flipped-images"):
        assert f"n {record.n}" in sections[anchor], anchor
    for anchor in ("drop-by-class", "layers", "delegate-coverage", "accuracy-latency-and-size", "latency-samples"):
        assert re.search(r"\bn \d+", sections[anchor]), anchor
    assert 'href="#where-the-accuracy-goes"' in page
    assert "t2t_vit_10: top-1" not in sections["drift-by-stage"], "the waterfall stands in its place"


def test_steps_show_their_counts_and_mcnemar_p(page: str, report: Report) -> None:
    from pipeline.report.values import p_text

    record = report.runs[0].waterfall
    assert record is not None
    for stage in record.stages[1:]:
        assert stage.to_previous is not None
        change = stage.to_previous.change
        assert f"−{change.lost} +{change.gained}, p {p_text(change.p_value)}" in markup.unescape(page)


@pytest.mark.parametrize(("p", "text"), [(0.63, "0.63"), (0.0421, "0.042"), (0.0004, "<0.001"), (1.0, "1.00")])
def test_p_values_are_rounded_and_never_zero(p: float, text: str) -> None:
    from pipeline.report.values import p_text

    assert p_text(p) == text


def test_flipped_images_tell_who_says_what(page: str, report: Report) -> None:
    record = report.runs[0].waterfall
    assert record is not None
    changed = [image for image in record.images if len(set(image.classes)) > 1]
    assert page.count("<img ") == sum(image.thumbnail is not None for image in changed) > 3
    assert page.count("no picture kept") == sum(image.thumbnail is None for image in changed) == 1
    image = changed[0]
    card = page[page.index(image.name) :].split("</figure>")[0]
    assert f"label: class {image.label}" in card
    for top in set(image.classes):
        assert f"{'✓' if top == image.label else '✗'} class {top}" in card


def test_simulated_stages_are_labelled(page: str) -> None:
    assert "mil-fp16 (simulated)" in page
    assert "Hollow: simulated (MIL reference), no runtime was run" in page


def test_many_classes_show_the_worst_twenty_and_say_so() -> None:
    from pipeline.report.tables.waterfall import MOST_CLASSES, class_table

    table = class_table("t2t_vit_10", made_up_waterfall(classes=200, n=400))
    assert len(table.rows) == MOST_CLASSES == 20
    assert any("180 of 200 classes" in note for note in table.notes)
    drops = [max(value.sort or 0 for value in row[3:]) for row in table.rows]
    assert drops == sorted(drops, reverse=True)
    assert drops[0] > 0


def test_the_pareto_front_is_what_nothing_beats() -> None:
    from pipeline.metrics.accuracy import Accuracy
    from pipeline.metrics.latency import summarize
    from pipeline.records.keys import CellKey
    from pipeline.report.plots.latency import Point, front

    key = CellKey("m", "tflite", "litert", "int8", "qat", "host")

    def point(ms: float, right: int) -> Point:
        return Point(key, summarize([ms, ms, ms]), Accuracy(100, right, None), 1000)

    fast, good, beaten, slow = point(1, 80), point(3, 90), point(2, 80), point(4, 90)
    assert front([slow, good, beaten, fast]) == [fast, good]


def test_labels_do_not_lie_on_each_other_or_on_points() -> None:
    from pipeline.report.plots import latency
    from pipeline.report.plots.panels import INK, one_axes

    points = [(5.0, 50.0), (5.2, 50.5), (5.1, 53.0), (8.0, 51.0)]
    with one_axes(3.3) as (figure, axes):
        axes.set_xlim(0, 10)
        axes.set_ylim(45, 58)
        axes.set_xlabel("x")
        texts = [
            latency.Label(f"model {i}\nint8 qat, 4.6 MB", x, y, INK, 4.0, x, y, y) for i, (x, y) in enumerate(points)
        ]
        latency.place_labels(axes, texts)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == len(points)
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not any(box.contains(*axes.transData.transform(point)) for point in points)
            assert axes.get_window_extent().x0 <= box.x0


def test_a_waterfall_comes_back_from_json(report: Report) -> None:
    assert report_of(report_to_json(report)) == report


def test_names_of_images_and_classes_cannot_smuggle_markup() -> None:
    from dataclasses import replace

    report = made_up_explained_report()
    record = report.runs[0].waterfall
    assert record is not None
    hostile = "<img src=x onerror=alert(1)>"
    record = replace(
        record,
        class_names=(hostile,) * len(record.class_names),
        images=tuple(replace(image, name=hostile) for image in record.images),
    )
    run = replace(report.runs[0], waterfall=record, conversions=(), validations=(), latencies=())
    text = html.render(replace(report, runs=(run,)))
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_the_script_is_short_and_plain(tmp_path: Path) -> None:
    script = html.environment().globals["script"]
    assert isinstance(script, str)
    assert len(script.splitlines()) < 60
    assert not re.search(r"innerHTML|eval|fetch|XMLHttpRequest|import", script)


@pytest.mark.parametrize("kind", ["terminal", "markdown"])
def test_other_reports_have_the_waterfall_as_a_table(kind: str, report: Report) -> None:

    text = {"terminal": terminal_text, "markdown": html.as_markdown}[kind](report)
    record = report.runs[0].waterfall
    assert record is not None
    assert "t2t_vit_10: waterfall" in text
    for stage in record.stages[1:]:
        assert stage.to_previous is not None
        assert f"{stage.to_previous.change.drop_pp:.2f}".replace("-", "−") in text
    assert "drop against official" in " ".join(text.split())
