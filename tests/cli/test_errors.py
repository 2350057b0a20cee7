"""Bad input on the command line: the documented exit code, one message that names the value, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import main_py
from PIL import Image

from pipeline.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def folder_with_a_bad_image(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (32, 32), (40 * i, 80, 120)).save(root / split / name / f"{i}.png")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    return root


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("quantize", 2, "name a model"),
        ("quantize t2t_vit_9", 2, "Did you mean 't2t_vit_"),
        ("quantize t2t_vit_7 --data nowhere", 3, "nowhere does not exist"),
        ("quantize t2t_vit_7 --weights nowhere.pth", 4, "nowhere.pth"),
        ("quantize t2t_vit_7 --weights pretraned", 4, "Did you mean 'pretrained'"),
        ("quantize t2t_vit_7 --observer minmax", 2, "moving-average"),
        ("quantize t2t_vit_7 --form naive", 2, "deploy, official"),
        ("quantize t2t_vit_7 --batch-size 1", 2, "--batch-size is 1"),
        ("quantize t2t_vit_7 --lr nan", 2, "--lr"),
        ("quantize t2t_vit_7 --img-size 100 --weights none", 2, "100"),
        ("quantize t2t_vit_7 --train-device cuda:77", 2, "cuda:77"),
        ("quantize mobilenet_v2 --qk-scale 0.1 --weights none", 2, "qk_scale"),
        ("quantize t2t_vit_7 --run somewhere", 2, "--resume"),
        ("quantize --resume", 2, "nothing to resume"),
        ("convert --target corml", 2, "coreml"),
        ("convert --precision int4", 2, "int4"),
        ("convert --scheme w5", 2, "--precision 'w5' is not one of fp32"),
        ("convert --target tflite --scheme lut8", 2, "tflite is not converted in lut8"),
        ("convert --target executorch --signed-weights", 2, "--signed-weights belongs to coreml alone"),
        ("convert --target coreml --scheme w4 --deployment-target iOS17", 2, "w4 needs iOS18 or later"),
        ("convert --target coreml --deployment-target MacOS14", 2, "Did you mean 'macOS14'"),
        ("convert --target coreml --precision fp32 --float32-op softmax", 2, "float32 already"),
        ("convert", 2, "quantize t2t_vit_10"),
        ("convert --run nowhere", 2, "nowhere is not a run folder"),
        ("validate --rounding fp16-acumulate", 2, "Did you mean 'fp16-accumulate'"),
        ("validate --explain --explain-images 0", 2, "--explain-images is 0"),
        ("validate", 2, "no finished run"),
        ("validate --limit 0", 2, "--limit is 0"),
        ("validate --min-agreement 101", 2, "--min-agreement is 101"),
        ("validate --compute-units cpu-nee", 2, "cpu-and-ne"),
        ("validate --target tflite --compute-units cpu-only", 2, "--compute-units"),
        ("validate --target executorch --backend qnn", 2, "qnn"),
        ("benchmark --compute-plan --target tflite", 2, "coreml"),
        ("inspect nothing.mlpackage", 2, "nothing.mlpackage"),
        ("benchmark --threads 0", 2, "--threads is 0"),
        ("benchmark --rounds 0", 2, "--rounds is 0"),
        ("report", 2, "no finished run"),
        ("train t2t_vit_7 --out weights.bin", 2, "must end in .safetensors"),
        ("train t2t_vit_7 --out x.safetensors --epochs 1 --half-size-epochs 2", 2, "half-size-epochs is 2"),
        ("train t2t_vit_7 --out x.safetensors --resume", 2, "nothing to continue"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    arguments: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_T2T_RUNS", str(tmp_path / "runs"))
    ended = main_py(*arguments.split())
    assert ended.code == code, ended.err
    assert says in ended.err
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", ["quantise t2t_vit_7", "quantize t2t_vit_7 --epoch 1", "convert --no-such-option"]
)
def test_unknown_commands_and_options_are_usage_errors(arguments: str) -> None:
    ended = main_py(*arguments.split())
    assert ended.code == 2
    assert arguments.split()[-2 if "epoch" in arguments else -1 if "--" in arguments else 0] in ended.err


def test_unreadable_images_are_named_and_stop_the_run(tmp_path: Path) -> None:
    data = folder_with_a_bad_image(tmp_path / "pets")
    ended = main_py("quantize", "t2t_vit_7", "--weights", "none", "--data", data, "--runs-dir", tmp_path / "runs")
    assert ended.code == 3
    assert "train/cat/notes.txt" in ended.err
    assert "--skip-bad" in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_run_is_exit_code_7(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "20260101-000000-t2t_vit_7"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{half")
    ended = main_py("report", "--run", run, "--runs-dir", tmp_path / "runs")
    assert ended.code == 7
    assert "manifest.json is not valid JSON" in ended.err

    (run / "manifest.json").write_text(json.dumps({"schema": 1, "model": "t2t_vit_7", "files": {}}))
    ended = main_py("convert", "--run", run, "--runs-dir", tmp_path / "runs")
    assert ended.code == 7
    assert "checkpoint/quantization.json" in ended.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_no_sdk(command: str) -> None:
    heavy = "numpy scipy torch torchvision torchao timm tensorflow executorch coremltools litert_torch sklearn PIL"
    program = (
        f"import sys; sys.argv = {['main.py', *command.split(), '--help']!r}\n"
        "from pipeline.commands import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"loaded = [m for m in {[*heavy.split(), 'matplotlib']!r} if m in sys.modules]\n"
        f"loaded += [m for m in {[f'pipeline.commands.{other}' for other in COMMANDS if other != command]!r} "
        "if m in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    for name in [command] if command else COMMANDS:
        assert name in ended.stdout


def test_models_lists_the_zoo_with_its_sources() -> None:
    ended = main_py("models")
    assert ended.code == 0
    for text in ("t2t_vit_7", "t2t_vit_10", "t2t_vit_12", "mobilenet_v2", "71.7", "4.31", "1.1", "yitu-opensource"):
        assert text in ended.out


def test_the_exit_codes_of_the_documentation_are_those_of_the_code() -> None:
    from pipeline import errors

    codes = {cls.__name__: cls.exit_code for cls in errors.EdgeT2TError.__subclasses__()}
    table = (ROOT / "docs" / "exit-codes.md").read_text()
    for code in sorted({*codes.values(), *errors.FOREIGN.values(), 0, 1, 130}):
        assert f"| {code} |" in table, code


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a checkout")
def test_readme_commands_exist() -> None:
    import re

    named = set(re.findall(r"python main\.py ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= set(COMMANDS)
