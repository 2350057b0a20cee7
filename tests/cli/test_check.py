"""`check` on the command line: its exit codes, what it writes, what it refuses, and that it needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import gate_run
import pytest
from command_line import Ended, main_py
from gate_run import made_up_run_folder

from pipeline.records.keys import Outcome
from pipeline.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]


class Checked:
    """A runs folder, a baseline that was made of its first run, and commands on them."""

    def __init__(self, root: Path) -> None:
        self.root = root / "runs"
        self.baseline = root / "baseline.json"
        self.run = made_up_run_folder(self.root)
        gate_run.benchmark(self.run, 3.0)
        assert self("--update").code == 0

    def __call__(self, *arguments: object) -> Ended:
        return main_py("check", "--baseline", self.baseline, "--runs-dir", self.root, *arguments)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    monkeypatch.chdir(tmp_path)
    return Checked(tmp_path)


def test_the_run_of_the_baseline_passes(check: Checked) -> None:
    ended = check()
    assert ended.code == 0, ended.err
    assert ended.out.endswith("check: pass\n")
    assert "int8_speed: " in ended.out  # there is no float file beside it, and that is told


def test_a_drop_is_9_and_says_where(check: Checked) -> None:
    gate_run.validate(check.run, 60)
    ended = check()
    assert ended.code == 9
    assert ended.err.startswith("error: 3 of 3 cells regressed:")
    assert "tflite litert int8: drop: 20 images lost, 0 gained of 400" in ended.err
    assert "smallest detectable drop" in ended.err
    assert "Traceback" not in ended.err


def test_a_slowdown_is_9(check: Checked) -> None:
    gate_run.benchmark(check.run, 3.6, seed=7)
    ended = check()
    assert ended.code == 9
    assert "latency: ratio to MobileNetV2 1.19" in ended.err
    assert check("--skip", "latency").code == 0
    assert check("--warn", "latency").code == 0
    assert "regressed, a warning only" in check("--warn", "latency").out
    assert check("--max-latency-ratio", 1.5).code == 0


def test_more_memory_is_9_and_memory_that_was_not_measured_is_told(check: Checked) -> None:
    gate_run.validate(check.run, 40, peak_bytes=23_000_000)
    ended = check()
    assert ended.code == 9
    assert "memory: 23000000 bytes of peak memory, 20000000 in the baseline" in ended.err
    assert check("--max-memory-ratio", 1.2).code == 0
    gate_run.validate(check.run, 40, peak_bytes=None)
    ended = check()
    assert ended.code == 0
    assert "peak memory was not measured in this run" in " ".join(ended.out.split())


def test_a_cell_that_failed_is_10_with_its_reason(check: Checked) -> None:
    failed = Outcome("failed", "convert", "no lowering for aten.foo")
    gate_run.convert(check.run, "tflite", outcome=failed, path=None, sha256=None)
    ended = check()
    assert ended.code == 10
    assert "failed at convert: no lowering for aten.foo" in ended.err


def test_a_file_that_was_converted_again_counts_as_missing_until_it_is_validated(check: Checked) -> None:
    gate_run.convert(check.run, "tflite", sha256="12" * 32)
    ended = check()
    assert ended.code == 10
    assert "converted again after validate: run validate again" in ended.err


def test_too_few_images_is_11_unless_that_may_pass(check: Checked) -> None:
    gate_run.validate(check.run, 43)
    ended = check()
    assert ended.code == 11
    assert "inconclusive" in ended.err
    assert check("--inconclusive", "pass").code == 0
    assert check("--max-drop", 5).code == 0


def test_other_images_are_10(check: Checked) -> None:
    made_up_run_folder(check.root, n=200)
    ended = check()
    assert ended.code == 10
    assert "other images: 200 with digest" in ended.err


def test_files_are_written_beside_the_table(check: Checked, tmp_path: Path) -> None:
    gate_run.validate(check.run, 60)
    written = [tmp_path / "out" / name for name in ("junit.xml", "check.json")]
    summary = tmp_path / "elsewhere" / "summary.md"
    ended = check("--junit", written[0], "--json", written[1], "--markdown", summary)
    assert ended.code == 9
    assert ElementTree.parse(written[0]).getroot().get("failures") == "6"  # drop and agreement in three runtimes
    assert json.loads(written[1].read_text())["exit_code"] == 9
    assert summary.read_text().startswith("# Gate: regressed")
    assert "drop in top-1" in ended.out


def test_settings_come_from_the_file_of_this_folder_and_options_win(check: Checked, tmp_path: Path) -> None:
    gate_run.validate(check.run, 60)
    (tmp_path / "edge-t2t.toml").write_text(
        f'[check]\nbaseline = "{check.baseline.name}"\n[check.rules.drop]\nmax_pp = 20\n'
        "[check.rules.agreement]\nenabled = false\n"
    )
    assert main_py("check", "--runs-dir", check.root).code == 0
    assert main_py("check", "--runs-dir", check.root, "--max-drop", 1).code == 9
    shown = main_py("check", "--show-settings", "--max-drop", 1).out
    assert "max_pp = 1.0  # option" in shown
    assert "enabled = false  # edge-t2t.toml" in shown


def test_an_update_shows_old_and_new_and_then_passes(check: Checked) -> None:
    gate_run.validate(check.run, 60)
    before = check.baseline.read_text()
    ended = check("--update")
    assert ended.code == 0
    assert "360 of 400" in ended.out
    assert "→ 340 of 400" in ended.out
    assert check.baseline.read_text() != before
    assert check().code == 0


def test_an_update_replaces_a_damaged_baseline_and_says_so(check: Checked) -> None:
    check.baseline.write_text("{half")
    assert check().code == 7
    ended = check("--update")
    assert ended.code == 0
    assert "cannot be shown beside the new one" in ended.err
    assert check().code == 0


def test_an_update_from_a_run_with_failed_cells_needs_to_be_asked_for(check: Checked) -> None:
    failed = Outcome("failed", "convert", "no lowering for aten.foo")
    gate_run.convert(check.run, "tflite", outcome=failed, path=None, sha256=None)
    before = check.baseline.read_text()
    ended = check("--update")
    assert ended.code == 6
    assert "--allow-failed" in ended.err
    assert check.baseline.read_text() == before
    assert check("--update", "--allow-failed").code == 0
    assert check().code == 0  # failed then as now


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-drop", -1], "give a number from 0 to 100"),
        (["--max-drop", 101], "give a number from 0 to 100"),
        (["--min-agreement", 101], "min_percent is 101.0"),
        (["--skip", "dropp"], "Did you mean 'drop'?"),
        (["--warn", "sise"], "Did you mean 'size'?"),
        (["--inconclusive", "maybe"], "give fail or pass"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--allow-failed"], "belongs to --update"),
        (["--baseline", "nowhere.json"], "--update` makes one"),
        (["--run", "nowhere"], "is not a run folder"),
    ],
)
def test_usage_errors_are_2_and_write_nothing(check: Checked, arguments: list, says: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    ended = check(*arguments)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_was_not_validated_is_a_usage_error(check: Checked) -> None:
    manifest = check.run.manifest
    del manifest["files"]["validation.json"]
    gate_run.edit_manifest(check.run, files=manifest["files"])
    for arguments in ((), ("--update",)):
        ended = check(*arguments)
        assert ended.code == 2
        assert "nothing was validated" in ended.err


def test_a_baseline_of_another_model_is_a_usage_error(check: Checked) -> None:
    made_up_run_folder(check.root, model="t2t_vit_10")
    ended = check()
    assert ended.code == 2
    assert "is a baseline of t2t_vit_7" in ended.err


def test_no_baseline_named_is_a_usage_error(check: Checked) -> None:
    ended = main_py("check", "--runs-dir", check.root)
    assert ended.code == 2
    assert "no baseline: give --baseline FILE" in ended.err


def test_damage_is_7(check: Checked) -> None:
    def broken(run: Run) -> Path:
        return next((run.path / "logits").iterdir())

    content = broken(check.run).read_bytes()
    broken(check.run).write_bytes(content[:-1])
    ended = check()
    assert ended.code == 7
    assert "changed after it was written" in ended.err
    broken(check.run).write_bytes(content)
    check.baseline.write_text(check.baseline.read_text().replace('"top1"', '"top"'))
    ended = check()
    assert ended.code == 7
    assert "baseline.json.cells[0].scored has an unknown key 'top'" in ended.err


def test_it_needs_no_torch(check: Checked) -> None:
    heavy = "torch torchvision torchao timm tensorflow executorch coremltools litert_torch sklearn matplotlib"
    program = (
        f"import sys; sys.argv = ['main.py', 'check', '--baseline', {str(check.baseline)!r}, "
        f"'--runs-dir', {str(check.root)!r}]\n"
        "from pipeline.commands import main\n"
        "main.__globals__['app'](standalone_mode=False)\n"
        f"loaded = [m for m in {heavy.split()!r} if m in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "check: pass" in ended.stdout
