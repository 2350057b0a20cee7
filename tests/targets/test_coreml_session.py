"""The session that Core ML's `predict` gets on a Mac, held to its contract with the MIL interpreter behind it.

The interpreter answers the same `predict` as coremltools' MLModel, on packages that were converted and saved for real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_hybrid import CLASSES, INPUT_SIZE, SavedProgram

from targets import registry
from targets.boundary import Boundary
from targets.coreml import runner, units
from targets.coreml.interpreter.program import MilProgram, load_program
from targets.coreml.mil import load_main
from targets.coreml.package import Preprocessing
from targets.coreml.session import CoreMLSession, PackageInput, read_input
from targets.types import PackageOptions, TargetError, Unavailable
from targets.worker.host import HostWorker

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Largest difference to torch, of the largest logit: as in the contract suite, in single precision.
TOLERANCE = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.06}


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    with HostWorker(timeout_s=600) as worker:
        yield worker


@dataclass(frozen=True)
class Package:
    path: Path
    program: SavedProgram
    precision: str

    def session(self) -> CoreMLSession:
        spec, _ = load_main(self.path)
        return CoreMLSession(load_program(self.path).predict, read_input(spec), self.path.name)


def convert(
    worker: HostWorker,
    programs: dict[str, SavedProgram],
    folder: Path,
    precision: str,
    options: PackageOptions | None = None,
) -> Package:
    program = programs[precision]
    path = folder / f"tiny-{precision}.mlpackage"
    worker.convert("coreml", program.path, program.sha256, precision, path, options=options)  # type: ignore[arg-type]
    return Package(path, program, precision)


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def package(
    request: pytest.FixtureRequest,
    worker: HostWorker,
    programs: dict[str, SavedProgram],
    tmp_path_factory: pytest.TempPathFactory,
) -> Package:
    return convert(worker, programs, tmp_path_factory.mktemp("packages"), request.param)


@pytest.fixture(scope="module")
def pictures(
    worker: HostWorker, programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory
) -> Package:
    """Takes RGB pictures, with the preprocessing folded in, and gives labels beside the logits."""
    options = PackageOptions(image_input=True, mean=MEAN, std=STD, class_labels=tuple("abcde"))
    return convert(worker, programs, tmp_path_factory.mktemp("pictures"), "fp32", options)


def random_pixels(n: int) -> np.ndarray:
    """uint8 [N, H, W, 3]"""
    return np.random.default_rng(0).integers(0, 256, (n, *INPUT_SIZE[1:], 3), dtype=np.uint8)


def test_logits_are_those_of_torch(package: Package) -> None:
    logits = package.session().infer(package.program.images)
    assert logits.dtype == np.float32
    assert logits.shape == package.program.logits.shape
    assert np.isfinite(logits).all()
    error = np.abs(logits - package.program.logits).max() / np.abs(package.program.logits).max()
    assert error < TOLERANCE[package.precision]


def test_images_keep_their_order_and_leave_nothing_behind(package: Package) -> None:
    session, images = package.session(), package.program.images
    logits = session.infer(images)
    assert len({row.tobytes() for row in logits}) == len(images)
    assert np.array_equal(session.infer(images[::-1])[::-1], logits)


def test_time_gives_as_many_samples_as_were_asked_for(package: Package) -> None:
    samples_ms = package.session().time(package.program.images[:2], 5)
    assert len(samples_ms) == 5
    assert all(0 < sample < 10_000 for sample in samples_ms)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 16, 16), np.float32),
        np.zeros((1, 1, 32, 32), np.float32),
        np.zeros((1, *INPUT_SIZE), np.float64),
        np.zeros((1, *INPUT_SIZE), np.uint8),
        np.zeros((0, *INPUT_SIZE), np.float32),
        np.zeros(INPUT_SIZE, np.float32),
    ],
    ids=lambda images: f"{images.dtype}-{'x'.join(map(str, images.shape))}",
)
def test_other_images_are_refused(images: np.ndarray, package: Package) -> None:
    session = package.session()
    for call in (session.infer, lambda batch: session.time(batch, 1)):
        with pytest.raises(TargetError, match=r"tiny-.* takes float32 images of \[3, 32, 32\]") as caught:
            call(images)
        assert caught.value.stage == "run"


def test_a_closed_session_is_refused(package: Package) -> None:
    session = package.session()
    session.close()
    for call in (session.infer, lambda images: session.time(images, 1)):
        with pytest.raises(TargetError, match="session is closed") as caught:
            call(package.program.images)
        assert caught.value.stage == "run"


def test_a_package_for_pictures_gets_the_pixels_as_they_are(pictures: Package) -> None:
    pixels = random_pixels(3)
    handed: list[Image.Image] = []

    class Watched:
        """The interpreter, with a note of what it was given."""

        def __init__(self, program: MilProgram) -> None:
            self.program = program

        def predict(self, data: dict[str, Image.Image]) -> dict[str, np.ndarray]:
            handed.extend(data.values())
            return self.program.predict(data)

    spec, _ = load_main(pictures.path)
    session = CoreMLSession(Watched(load_program(pictures.path)).predict, read_input(spec), pictures.path.name)
    logits = session.infer(pixels)
    assert [image.mode for image in handed] == ["RGB"] * 3
    assert np.array_equal(np.stack([np.asarray(image) for image in handed]), pixels)
    assert logits.shape == (3, CLASSES)


def test_a_package_for_pictures_agrees_with_one_for_normalised_images(
    pictures: Package, worker: HostWorker, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    pixels = random_pixels(4)
    images = Boundary.tensor(INPUT_SIZE[1:], MEAN, STD).feed(pixels)
    plain = convert(worker, programs, tmp_path, "fp32").session().infer(images)
    folded = pictures.session().infer(pixels)
    assert np.abs(folded - plain).max() / np.abs(plain).max() < 1e-5


def test_what_a_package_takes_is_read_from_it(package: Package, pictures: Package) -> None:
    assert read_input(load_main(package.path)[0]) == PackageInput("images", (1, *INPUT_SIZE))
    assert read_input(load_main(pictures.path)[0]) == PackageInput("images", (1, *INPUT_SIZE), Preprocessing(MEAN, STD))


def test_a_picture_without_its_preprocessing_is_refused(pictures: Package) -> None:
    spec, _ = load_main(pictures.path)
    spec.description.metadata.userDefined.clear()
    with pytest.raises(ValueError, match="which mean and std are folded"):
        read_input(spec)


def test_a_model_without_logits_is_refused(package: Package) -> None:
    class Renamed:
        def predict(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"scores": np.zeros((1, CLASSES), np.float32)}

    session = CoreMLSession(Renamed().predict, PackageInput("images", (1, *INPUT_SIZE)), "foreign.mlpackage")
    with pytest.raises(TargetError, match=r"foreign\.mlpackage gives scores, no 'logits'"):
        session.infer(package.program.images)


def test_an_error_of_the_framework_is_one_of_the_stage_run(package: Package) -> None:
    session = CoreMLSession(load_program(package.path).predict, PackageInput("pixels", (1, *INPUT_SIZE)), "p.mlpackage")
    with pytest.raises(TargetError, match=r"tiny-\w+\.mlpackage") as caught:  # the interpreter knows no input "pixels"
        session.infer(package.program.images)
    assert caught.value.stage == "run"


def test_each_choice_of_units_is_a_runtime_of_its_own() -> None:
    assert list(units.RUNTIMES.values()) == ["coreml", "coreml-cpu-only", "coreml-cpu-and-gpu", "coreml-cpu-and-ne"]
    assert registry.runtimes("coreml", "cpu-and-ne") == ("coreml-cpu-and-ne",)
    assert registry.runtimes("coreml") == registry.get("coreml").runtimes
    assert registry.runtimes("tflite", "cpu-and-ne") == registry.get("tflite").runtimes


def test_each_choice_is_one_of_coremltools() -> None:
    import coremltools as ct

    assert {units.compute_unit(choice) for choice in units.RUNTIMES} == set(ct.ComputeUnit)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
@pytest.mark.parametrize("choice", units.RUNTIMES)
def test_elsewhere_every_choice_is_unavailable(choice: str, package: Package) -> None:
    with pytest.raises(Unavailable, match=f"no Core ML runtime on {sys.platform}"):
        runner.load(package.path, units.RUNTIMES[choice], 1)


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
@pytest.mark.parametrize("choice", units.RUNTIMES)
def test_on_a_mac_every_choice_agrees_with_torch(choice: str, package: Package) -> None:
    session = runner.load(package.path, units.RUNTIMES[choice], 1)
    logits = session.infer(package.program.images)
    error = np.abs(logits - package.program.logits).max() / np.abs(package.program.logits).max()
    assert error < TOLERANCE[package.precision]
    assert isinstance(session, CoreMLSession)
    assert session.load_ms is not None
    assert session.load_ms > 0
