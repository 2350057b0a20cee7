"""The command that fills the table of results from published weights and a folder of photos, with both made up here."""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import accuracy_results
from pipeline.models.build import create_timm

MODEL = "test_resnet.r160_in1k"  # timm's small network for tests: 0.5 million parameters, 160 pixels
CLASSES, TRAINING, VALIDATION = ("dots", "stripes", "waves"), 8, 7  # images of each class
N = len(CLASSES) * VALIDATION
STAGES = ["float", "fake quantization", "QDQ program", "executorch int8"]


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serves weights for 1000 classes where timm looks for those of MODEL; nothing leaves the machine."""
    file = tmp_path / "hub" / "timm" / MODEL / "resolve" / "main" / "model.safetensors"
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    model = create_timm(MODEL, None, None).train()
    with torch.no_grad():
        for _ in range(20):  # running statistics of images of one colour and noise
            model(torch.randn(8, 3, 1, 1) + 0.3 * torch.randn(8, 3, 64, 64))
    save_file(model.state_dict(), file)
    handler = functools.partial(Handler, directory=tmp_path / "hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield
        server.shutdown()


def save_photos(root: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in {"train": TRAINING, "val": VALIDATION}.items():
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 100, (48, 64, 3))
                pixels[:, :, number] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")


def table(options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Cells of the rows of the last table that is printed."""
    monkeypatch.setattr(sys, "argv", ["accuracy_results.py", *options])
    accuracy_results.main()
    whole = capsys.readouterr().out.split(accuracy_results.HEAD)[-1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in whole.strip().splitlines()]


@pytest.mark.usefixtures("hub")
def test_published_weights_and_a_folder_of_photos_become_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(tmp_path / "photos")
    options = [
        MODEL, "--data", str(tmp_path / "photos"), "--weights", "pretrained", "--targets", "executorch",
        "--ptq-targets", "", "--threads", "1", "--runs-dir", str(tmp_path / "runs"),
    ]  # fmt: skip
    rows = table(options, capsys, monkeypatch)
    assert [row[:2] for row in rows] == [[MODEL, "QAT"]] * 4 + [[MODEL, "PTQ"]] * 3
    assert [row[2].removesuffix(" ptq").removesuffix(" qat") for row in rows] == [*STAGES, *STAGES[:3]]
    right = [round(float(row[3]) * N / 100) for row in rows]
    assert [row[3] for row in rows] == [f"{100 * count / N:.2f}" for count in right]
    assert [row[6] for row in rows] == [str(N)] * 7
    for first in (0, 4):
        assert rows[first][4:6] == ["", ""]  # float is what the others are compared with
        for row, count in zip(rows[first + 1 : first + 4], right[first + 1 : first + 4], strict=True):
            lost, gained = map(int, re.fullmatch(r"-(\d+) \+(\d+)", row[5]).groups())  # type: ignore[union-attr]
            assert count == right[first] - lost + gained
            assert float(row[4].split()[0]) == pytest.approx(100 * (lost - gained) / N, abs=0.005)
    assert right[0] == right[4]  # both are made from the same fine-tuned float model
