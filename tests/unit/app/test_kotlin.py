"""The exported Kotlin files compile, and their Picture.kt prepares photos as `calibration.preprocess` does.

A compiler is found as `kotlinc` on the PATH or by EDGE_T2T_KOTLINC; `npm install kotlin-compiler` brings one. What the
files use of Android and the runtimes is declared in tests/support/kotlin.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.preprocess import to_rgb
from pipeline.app.code import render
from pipeline.app.preparation import Preparation
from pipeline.config import INTERPOLATION_NAMES
from pipeline.models.build import ModelConfig
from pipeline.training.subject import eval_transform

ROOT = Path(__file__).parents[3]
DECLARATIONS = ROOT / "tests/support/kotlin"
KOTLINC = os.environ.get("EDGE_T2T_KOTLINC") or shutil.which("kotlinc")
MISSING = ", ".join(name for name, found in (("kotlinc", KOTLINC), ("java", shutil.which("java"))) if not found)

ALL_FILES = {"tflite": "tflite-int8.tflite", "executorch": "executorch-int8.pte", "coreml": "coreml-int8.mlpackage"}


@dataclass(frozen=True)
class Choice:
    """One way of preparing photos, in a Kotlin package of its own."""

    package: str
    config: ModelConfig

    def render(self, files: Mapping[str, str] = ALL_FILES) -> dict[str, str]:
        return render("t2t_vit_10", Preparation.of(self.config), files, self.package)


def choice(package: str, height: int, width: int, crop_pct: float, interpolation: str, mode: str = "center") -> Choice:
    half = (0.5, 0.5, 0.5)
    size = (3, height, width)
    return Choice(package, ModelConfig("resnet18", 10, size, half, half, crop_pct, interpolation, crop_mode=mode))


CHOICES = [
    *(choice(f"edge.{name}", 48, 48, 0.9, name) for name in INTERPOLATION_NAMES),
    choice("edge.whole", 56, 56, 1.0, "bicubic"),
    choice("edge.squash", 40, 56, 0.875, "bicubic", "squash"),
]


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is exported, for every choice, compiled in one call (the compiler takes long to start)."""
    if MISSING:
        pytest.skip(f"no {MISSING} on the PATH (kotlinc: npm install kotlin-compiler, or EDGE_T2T_KOTLINC)")
    folder = tmp_path_factory.mktemp("kotlin")
    sources = list(DECLARATIONS.glob("*.kt"))
    for one in CHOICES:
        for name, text in one.render().items():
            # Of all choices but one Picture.kt alone: the other files do not depend on how a photo is prepared.
            if name.endswith("Picture.kt" if one is not CHOICES[0] else ".kt"):
                sources.append(folder / one.package / name)
                sources[-1].parent.mkdir(parents=True, exist_ok=True)
                sources[-1].write_text(text, encoding="utf-8")
    compiled = folder / "app.jar"
    command = [str(KOTLINC), "-Werror", "-Wextra", "-progressive", "-include-runtime", "-d", str(compiled)]
    finished = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr.strip()
    return compiled


def noise(width: int, height: int, channels: int) -> np.ndarray:
    """Pixels that overshoot every filter: black and white beside each other, and smooth parts between them."""
    random = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, channels), np.uint8)).resize((width, height), Image.BICUBIC)
    spots = random.integers(0, 2, (height, width, channels), np.uint8) * 255
    return np.where(random.random((height, width, 1)) < 0.3, spots, np.asarray(coarse)).astype(np.uint8)


SHAPES = {
    "landscape": (320, 240),
    "portrait": (201, 333),
    "square": (128, 128),
    "of the size already": (53, 53),
    "enlarged": (31, 40),
    "enlarged on one side only": (61, 47),
    "a wide strip": (700, 19),
    "a tall strip": (19, 700),
    "twice as tall as wide": (90, 183),
    "one pixel": (1, 1),
}
IMAGES = {name: noise(*shape, 3) for name, shape in SHAPES.items()} | {"transparent": noise(157, 90, 4)}


@pytest.fixture(scope="module")
def prepared(jar: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], np.ndarray]:
    """What Picture.prepare gives for each choice and image: uint8 [H, W, 3]."""
    folder = tmp_path_factory.mktemp("pixels")
    lines, results = [], {}
    for number, (name, pixels) in enumerate(IMAGES.items()):
        height, width, channels = pixels.shape
        alpha = pixels[..., 3:] if channels == 4 else np.full((height, width, 1), 255, np.uint8)
        (folder / f"{number}.argb").write_bytes(np.concatenate([alpha, pixels[..., :3]], axis=2).tobytes())
        for one in CHOICES:
            results[one.package, name] = folder / f"{number}-{one.package}.rgb"
            lines.append(f"{one.package} {width} {height} {folder / f'{number}.argb'} {results[one.package, name]}")
    (folder / "lines").write_text("\n".join(lines))
    subprocess.run(["java", "-cp", str(jar), "prepared.PrepareKt", str(folder / "lines")], check=True)
    sizes = {one.package: one.config.input_size for one in CHOICES}
    return {
        (package, name): np.fromfile(file, np.uint8).reshape(*sizes[package][1:], 3)
        for (package, name), file in results.items()
    }


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("one", CHOICES, ids=lambda one: one.package)
def test_photos_are_prepared_as_for_evaluation(
    one: Choice, name: str, prepared: dict[tuple[str, str], np.ndarray]
) -> None:
    transform = eval_transform(one.config).build(normalize=False)
    expected = transform(to_rgb(Image.fromarray(IMAGES[name]))).numpy().transpose(1, 2, 0)
    difference = np.abs(prepared[one.package, name].astype(int) - expected.astype(int))
    assert difference.max() <= 1, f"{(difference > 0).sum()} of {difference.size} values differ"


@pytest.mark.parametrize("one", CHOICES, ids=lambda one: one.package)
def test_templates_render_for_every_choice(one: Choice) -> None:
    rendered = one.render()
    assert {name.split("/")[0] for name in rendered} == {"README.md", "android", "ios"}
    for name, text in rendered.items():
        lines = text.splitlines()
        assert not [line for line in lines if "{{" in line or "{%" in line or line != line.rstrip()], name
        assert text.endswith("\n"), name


@pytest.mark.parametrize(
    ("left_out", "classifier", "library"),
    [
        ("tflite", "LiteRtClassifier", "litert:"),
        ("executorch", "ExecuTorchClassifier", "executorch-android"),
        ("coreml", "Classifier.swift", "ios/"),
    ],
)
def test_a_file_that_is_not_there_is_not_asked_for(left_out: str, classifier: str, library: str) -> None:
    rendered = CHOICES[0].render({target: name for target, name in ALL_FILES.items() if target != left_out})
    for name, text in rendered.items():
        assert classifier not in name + text
        assert library not in name + text


def test_an_app_for_ios_alone_has_no_android_folder() -> None:
    rendered = CHOICES[0].render({"coreml": ALL_FILES["coreml"]})
    assert not [name for name in rendered if name.startswith("android")]
