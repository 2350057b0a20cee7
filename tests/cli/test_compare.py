"""`compare` on the command line: every form, a file instead of stdout, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Ended, main_py
from compared_run import MadeUp, make_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    make_run(root, MadeUp(wrong=(2,)), 1)
    make_run(root, MadeUp(model="mobilenet_v2", wrong=(0, 3, 6), timed=False), 2)
    return root


A, B = "20260101-120001-t2t_vit_7", "20260101-120002-mobilenet_v2"


def compare(root: Path, *arguments: object) -> Ended:
    return main_py("compare", *arguments, "--runs-dir", root)


def test_a_table_on_stdout(root: Path) -> None:
    ended = compare(root, A, B)
    assert ended.code == 0, ended.err
    assert f"A: {A}, t2t_vit_7, digits, 60 images scored" in ended.out
    assert "Different models" in ended.out
    assert "3 lost, 1 gained" in ended.out
    assert "B: no latency was measured" in ended.out
    assert not ended.err


def test_json_on_stdout_is_json_alone(root: Path) -> None:
    data = json.loads(compare(root, A, B, "--format", "json").out)
    assert data["cells"][0]["paired"]["change"] == {"n": 60, "lost": 3, "gained": 1}
    assert (data["a"]["run_id"], data["b"]["run_id"]) == (A, B)


@pytest.mark.parametrize(
    ("form", "begins"), [("table", "A: "), ("json", "{"), ("markdown", "# Two"), ("html", "<!doc")]
)
def test_a_file_instead_of_stdout(root: Path, tmp_path: Path, form: str, begins: str) -> None:
    file = tmp_path / "folder" / "compared"
    ended = compare(root, A, B, "--format", form, "--output", file)
    assert ended.code == 0, ended.err
    assert not ended.out
    assert f"written: {file}" in ended.err
    text = file.read_text()
    assert text.startswith(begins)
    assert "not paired" not in text or form == "json"
    assert B in text


def test_the_page_asks_for_nothing_from_outside(root: Path) -> None:
    page = compare(root, A, B, "--format", "html").out
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script src" not in page


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((A,), 2, "RUN_B"),
        ((A, "20260101-120002-mobilenet_v3"), 2, "Did you mean '20260101-120002-mobilenet_v2'"),
        ((A, B, "--format", "markdwn"), 2, "Did you mean 'markdown'"),
    ],
)
def test_what_is_refused(root: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = compare(root, *arguments)
    assert ended.code == code
    assert says in ended.err


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, MadeUp(), 1), make_run(tmp_path, MadeUp(), 2)
    logits = b.path / "checkpoint/logits.npz"
    logits.write_bytes(logits.read_bytes() + b"x")
    ended = compare(tmp_path, a.id, b.id)
    assert ended.code == 7
    assert "checkpoint/logits.npz changed" in ended.err


def test_it_needs_no_torch(root: Path) -> None:
    program = (
        f"import sys; sys.argv = ['main.py', 'compare', '{A}', '{B}', '--runs-dir', '{root}', '--output', '{root}/x']\n"
        "from pipeline.commands import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
