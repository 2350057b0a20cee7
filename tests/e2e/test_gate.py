"""The project's own gate: t2t_vit_7 on all digits against the committed baseline, and the same run damaged for real."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import Ended, main_py

from pipeline.records.conversion import ConversionRecord
from pipeline.run.cells import artifact_path, load_conversions, save_conversion
from pipeline.run.folder import Run, find_run

SETTINGS = Path(__file__).resolve().parents[1] / "baselines" / "edge-t2t.toml"
EVERY = 2  # one activation scale in so many is not the trained one
COARSER = 64.0  # a range of 256 steps has four left: the program guesses (10% of 30 images right)


@dataclass(frozen=True)
class Gated:
    """A finished run with a validated TFLite file, and how it is checked."""

    root: Path
    run: Run

    def command(self, *arguments: object) -> Ended:
        return main_py(*arguments, "--run", self.run.path, "--runs-dir", self.root)

    def check(self, *arguments: object) -> Ended:
        return self.command("check", "--config", SETTINGS, *arguments)

    def copy(self, root: Path) -> Gated:
        shutil.copytree(self.run.path, root / self.run.id)
        return Gated(root, Run(root / self.run.id))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Gated:
    root = tmp_path_factory.mktemp("gate") / "runs"
    ended = main_py(
        "quantize", "t2t_vit_7", "--weights", "demo", "--img-size", 96, "--epochs", 0, "--calibration-images", 32,
        "--runs-dir", root,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    made = Gated(root, find_run(root, None))
    for command in (("convert", "--target", "tflite", "--no-baseline"), ("validate", "--threads", 1)):
        ended = made.command(*command)
        assert ended.code == 0, ended.err
    return made


@pytest.fixture(scope="module")
def damaged(gated: Gated, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """The same run with a file that was converted from a program with other scales; not validated yet."""
    worse = gated.copy(tmp_path_factory.mktemp("damaged"))
    _coarsen(worse.run)
    ended = worse.command("convert", "--target", "tflite", "--no-baseline")
    assert ended.code == 0, ended.err
    return worse


def test_this_version_passes_its_own_baseline(gated: Gated, tmp_path: Path) -> None:
    junit, figures, summary = (tmp_path / name for name in ("junit.xml", "check.json", "summary.md"))
    summary.write_text("before\n")
    ended = gated.check("--junit", junit, "--json", figures, "--markdown", summary)
    assert ended.code == 0, ended.err
    assert ended.out.endswith("check: pass\n")
    data = json.loads(figures.read_text())
    assert {cell["key"]["runtime"]: cell["verdict"] for cell in data["cells"]} == {
        "litert": "pass",
        "tensorflow": "pass",
    }
    drops = [f for cell in data["cells"] for f in cell["findings"] if f["rule"] == "drop"]
    assert [f["n"] for f in drops] == [360, 360]
    root = ElementTree.parse(junit).getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    assert summary.read_text().startswith("before\n# Gate: pass\n")


def test_a_file_that_was_not_validated_since_it_was_converted_is_missing(damaged: Gated) -> None:
    ended = damaged.check()
    assert ended.code == 10
    assert "converted again after validate" in ended.err


def test_a_file_from_a_program_with_other_scales_is_regressed(damaged: Gated) -> None:
    assert damaged.command("validate", "--threads", 1).code == 0
    ended = damaged.check("--skip", "scales")
    assert ended.code == 9
    assert "tflite litert int8 ptq: drop: " in ended.err
    assert "tflite tensorflow int8 ptq: drop: " in ended.err
    assert "tflite litert int8 ptq: agreement: " in ended.err


def test_a_file_whose_scales_are_not_the_trained_ones_is_regressed(damaged: Gated, gated: Gated) -> None:
    """The damaged file as its reader sees it, held against the program of the run that it should come from."""
    record = _read_back(damaged.run, gated.run)
    assert record.scales_missing
    save_conversion(damaged.run, record, str(record.path))
    ended = damaged.check("--skip", "drop", "--skip", "agreement")
    assert ended.code == 9
    assert f"scales: {len(record.scales_missing)} of 255 trained scales are not in the file" in ended.err


def _coarsen(run: Run) -> None:
    """Publish a program in which every other activation is rounded far too coarsely, as bad scales would."""
    from pipeline.quantization.graph import save_program
    from pipeline.run.layout import QDQ_PROGRAM
    from targets.program import load_program

    program = load_program(run.path / QDQ_PROGRAM)
    quantized = [n for n in program.graph.nodes if "quantize_per_tensor" in str(n.target) and n.op == "call_function"]
    scales = list(dict.fromkeys(node.args[1] for node in quantized))
    worse = {scale: scale * COARSER for scale in scales[::EVERY]}
    for node in quantized:
        if node.args[1] in worse:
            node.args = (node.args[0], worse[node.args[1]], *node.args[2:])
    program.graph_module.recompile()
    save_program(program, run.path / QDQ_PROGRAM)
    run.record(QDQ_PROGRAM)


def _read_back(of_file: Run, of_program: Run) -> ConversionRecord:
    """The record that convert would have written, had it made that file from the program of the other run."""
    from dataclasses import replace

    from pipeline.run.layout import QDQ_PROGRAM
    from targets.match import match_scales
    from targets.program import load_program, trained_quant_params
    from targets.worker.host import HostWorker

    (record,) = load_conversions(of_file)
    with HostWorker() as worker:
        facts = worker.inspect("tflite", artifact_path(of_file, record))
    match = match_scales(trained_quant_params(load_program(of_program.file(QDQ_PROGRAM))), facts.quant_params)
    return replace(record, scales_total=match.total, scales_found=match.found, scales_missing=match.missing)
