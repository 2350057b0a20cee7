"""quantize -> convert -> validate -> export-app, and the folder alone: what an app has of a run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ended, main_py
from finished_run import SIDE, Finished
from PIL import Image
from prepare_photo import prepare

from pipeline.files import sha256_of
from pipeline.run.folder import find_run
from targets import registry
from targets.types import Unavailable
from targets.worker.host import HostWorker

IMAGES = 5


@dataclass(frozen=True)
class App:
    """The folder, and how it was made."""

    path: Path
    ended: Ended

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())

    def image(self, name: str) -> np.ndarray:
        return np.asarray(Image.open(self.path / "golden" / name).convert("RGB"))


@pytest.fixture(scope="module")
def app(finished: Finished) -> App:
    for ended in (
        finished.command("convert", "--no-baseline"),
        finished.command("validate", "--target", "tflite", "--target", "executorch", "--limit", 20),
        finished.command("export-app", "--license", "CC0 [test]"),
    ):
        assert ended.code == 0, ended.err
    return App(Path(ended.out.strip().splitlines()[-1]), ended)


def test_photos_become_the_golden_pixels_by_preprocessing_json_alone(app: App) -> None:
    said, images = app.json("preprocessing.json"), app.json("golden/golden.json")["images"]
    assert len(images) == len({image["label"] for image in images}) == IMAGES
    for image in images:
        made = prepare(app.image(image["image"]), said).astype(int)
        assert made.shape == (SIDE, SIDE, 3)
        assert np.abs(made - app.image(image["prepared"]).astype(int)).max() <= 1


@pytest.mark.parametrize("target", registry.names())
def test_every_runtime_here_gives_the_golden_answers(app: App, target: str) -> None:
    """Of the files in the folder, fed with the pixels as they are."""
    golden, labels = app.json("golden/golden.json"), (app.path / "labels.txt").read_text().splitlines()
    (file,) = app.path.glob(f"{target}-int8*{registry.get(target).suffix}")
    pixels = np.stack([app.image(image["prepared"]) for image in golden["images"]])
    ran = 0
    for runtime in (*registry.get(target).runtimes, *registry.get(target).simulated[:1]):
        try:
            with HostWorker() as worker:
                given = worker.open(target, file, runtime, 1).infer(pixels)
        except Unavailable:
            continue
        ran += 1
        if registry.get(target).gives != "probabilities":  # sessions give the logits
            given = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
        for image, seen in zip(golden["images"], given, strict=True):
            expected = image["files"][file.name]
            assert labels[int(seen.argmax())] == expected["top1"] == image["label"]
            np.testing.assert_allclose(seen, expected["probabilities"], atol=golden["tolerance"])
    assert ran, f"{target}: nothing here ran it"


def test_pixels_fed_wrongly_do_not_pass_for_right(app: App) -> None:
    """The golden answers find an app that swaps red and blue or crops elsewhere, or at least turns the picture."""
    golden = app.json("golden/golden.json")
    (file,) = app.path.glob("tflite-int8*.tflite")
    turned = np.stack([np.rot90(app.image(image["prepared"]), 2) for image in golden["images"]])
    with HostWorker() as worker:
        given = worker.open("tflite", file, "litert", 1).infer(np.ascontiguousarray(turned))
    expected = np.array([image["files"][file.name]["probabilities"] for image in golden["images"]])
    assert np.abs(given - expected).max() > golden["tolerance"]


def test_the_model_card_tells_figures_files_and_what_was_not_measured(app: App) -> None:
    card = (app.path / "model_card.md").read_text()
    for file in app.path.glob("*-int8*"):
        assert f"| {file.name} | int8" in card
        assert sha256_of(file) in card
    assert re.search(r"\| t2t_vit_7 \| tflite / litert<br>int8 \w+ \|.*% *<br>.*n 20 \|", card)
    missing = card.split("## Not measured")[1]
    assert re.search(r"- coreml int8 \w+: no runtime answered the validation images; it has no accuracy", missing)
    assert re.search(r"- tflite int8 \w+: not timed", missing)
    assert "on a phone: nothing" in missing
    assert r"- the model: CC0 \[test\]" in card


def test_the_code_names_the_files_and_the_versions_that_ran_them(app: App) -> None:
    from importlib.metadata import version

    (tflite,), (executorch,) = app.path.glob("*.tflite"), app.path.glob("*.pte")
    assert f'"{tflite.name}"' in (app.path / "android/LiteRtClassifier.kt").read_text()
    assert f'"{executorch.name}"' in (app.path / "android/ExecuTorchClassifier.kt").read_text()
    gradle = (app.path / "android/build.gradle.kts").read_text()
    assert f"com.google.ai.edge.litert:litert:{version('ai-edge-litert')}" in gradle
    assert f"org.pytorch:executorch-android:{version('executorch')}" in gradle
    assert f"const val HEIGHT = {SIDE}" in (app.path / "android/Picture.kt").read_text()
    (package,) = app.path.glob("*.mlpackage")
    assert package.stem in (app.path / "ios/Classifier.swift").read_text()


def test_the_folder_is_in_the_manifest_and_made_anew_as_a_whole(app: App, finished: Finished) -> None:
    run = find_run(finished.root, None)
    assert run.file("app") == app.path
    (app.path / "left_over.txt").write_text("of a version before")
    ended = finished.command("export-app", finished.run.id, "--target", "tflite")
    assert ended.code == 0, ended.err
    assert not (app.path / "left_over.txt").exists()
    assert not (app.path / "ios").exists()
    assert [path.suffix for path in app.path.glob("*-int8*")] == [".tflite"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "w8a16"), "has no w8a16 file for tflite: `python main.py convert"),
        (("--precision", "int8", "--precision", "fp32"), "an app gets one file for each target"),
    ],
)
def test_what_is_not_there_is_told_with_the_command_that_makes_it(
    app: App, finished: Finished, arguments: tuple[str, ...], says: str
) -> None:
    ended = finished.command("export-app", "--target", "tflite", *arguments)
    assert ended.code == 2
    assert says in " ".join(ended.err.split())


def test_a_file_that_takes_tensors_is_not_given_to_an_app(app: App, finished: Finished) -> None:
    ended = finished.command("convert", "--target", "executorch", "--tensor-input", "--no-baseline")
    assert ended.code == 0, ended.err
    ended = finished.command("export-app", "--target", "executorch")
    assert ended.code == 2
    assert "takes normalised floats" in ended.err


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = main_py("export-app", "nothing", "--runs-dir", tmp_path)
    assert ended.code == 2
    assert "nothing is not a run folder" in ended.err
