"""Files that take a picture: the same answers as the file for tensors, and no other way to feed them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hybrid import CLASSES, INPUT_SIZE, SavedProgram

from targets import registry
from targets.boundary import Boundary
from targets.executorch.convert import _same_steps
from targets.program import load_program
from targets.tflite import flatbuffer, metadata
from targets.types import ConvertRequest, FactsRecord, PackageOptions, Precision, Session, TargetError

MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), INPUT_SIZE[1:]
LABELS = ("ant", "bee", "cat", "dog", "süß & eel")
PICTURE = PackageOptions(
    image_input=True, mean=MEAN, std=STD, class_labels=LABELS, crop_pct=0.9, interpolation="bicubic"
)
TENSOR = Boundary.tensor(SIZE, MEAN, STD)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
CELLS: list[tuple[str, Precision]] = [(name, precision) for name in registry.names() for precision in ("fp32", "int8")]
#: Largest difference of a logit, or of a log-probability. Core ML computes the int8 file in half precision, where the
#: normalised pixels round otherwise; the others get the same floats.
TOLERANCE = {("coreml", "int8"): 0.1, ("coreml", "fp32"): 1e-4, ("tflite", "fp32"): 1e-5, ("tflite", "int8"): 1e-5}


@dataclass(frozen=True)
class Pair:
    """A file that takes a picture, and the one that takes tensors."""

    target: str
    precision: Precision
    picture: Path
    tensor: Path

    @property
    def boundary(self) -> Boundary:
        return registry.get(self.target).boundary(PICTURE, SIZE)

    def session(self, path: Path) -> Session:
        target = registry.get(self.target)
        return target.load(path, (target.simulated or target.runtimes)[0], 1)

    def facts(self, path: Path) -> FactsRecord:
        return registry.get(self.target).inspect(path)


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def pair(
    request: pytest.FixtureRequest, programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    name, precision = request.param
    target, folder = registry.get(name), tmp_path_factory.mktemp("pair")
    paths = folder / f"picture{target.suffix}", folder / f"tensor{target.suffix}"
    for path, options in zip(paths, (PICTURE, PackageOptions()), strict=True):
        program = load_program(programs[precision].path)
        target.convert(ConvertRequest(program, precision, path, {"model": "tiny", "run": "run-1"}, options))
    return Pair(name, precision, *paths)


def test_a_picture_gives_the_answers_of_its_tensor(pair: Pair) -> None:
    expected = pair.session(pair.tensor).infer(TENSOR.feed(PIXELS))
    scores = pair.boundary.scores(pair.session(pair.picture).infer(pair.boundary.feed(PIXELS)))
    if pair.boundary.gives == "probabilities":
        scores = scores - scores.mean(axis=1, keepdims=True) + expected.mean(axis=1, keepdims=True)
    assert np.abs(scores - expected).max() <= TOLERANCE.get((pair.target, pair.precision), 0.0)
    assert len({row.tobytes() for row in scores}) == len(PIXELS)


def test_the_boundary_stays_in_the_delegate(pair: Pair) -> None:
    picture, tensor = pair.facts(pair.picture), pair.facts(pair.tensor)
    assert picture.partitions == tensor.partitions
    if picture.fallback is not None and tensor.fallback is not None:
        cast = {"quantized_decomposed::dequantize_per_tensor": 1} if pair.target == "executorch" else {}
        assert picture.fallback == {**cast, **tensor.fallback}
    assert (picture.int8_weights, picture.float_weights) == (tensor.int8_weights, tensor.float_weights)


@pytest.mark.parametrize(
    "wrong",
    [
        TENSOR.feed(PIXELS),
        (PIXELS / np.float32(255)).astype(np.float32),
        (PIXELS / np.float32(127.5) - 1).astype(np.float32),
        PIXELS.astype(np.float32),
        np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)),
        PIXELS[:, :16],
        PIXELS.astype(np.int8),
    ],
    ids=["normalised", "0 to 1", "-1 to 1", "floats of bytes", "channels first", "another size", "signed"],
)
def test_every_wrong_way_to_feed_it_is_refused_by_name(pair: Pair, wrong: np.ndarray) -> None:
    session = pair.session(pair.picture)
    with pytest.raises(TargetError, match=r"picture.* takes uint8 images of \[32, 32, 3\] \(RGB pixels") as caught:
        session.infer(wrong)
    assert str(wrong.dtype) in caught.value.cause
    assert str(list(wrong.shape)) in caught.value.cause


def test_a_tensor_file_refuses_pixels(pair: Pair) -> None:
    for wrong in (PIXELS, TENSOR.feed(PIXELS).transpose(0, 2, 3, 1)):
        with pytest.raises(TargetError, match=r"tensor.* takes float32 images of \[3, 32, 32\]"):
            pair.session(pair.tensor).infer(wrong)


@pytest.fixture(scope="module")
def file(programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("file") / "a.tflite"
    request = ConvertRequest(load_program(programs["fp32"].path), "fp32", path, {"model": "tiny", "run": "r1"}, PICTURE)
    registry.get("tflite").convert(request)
    return path.read_bytes()


#: The tables that this project writes, fields in the order of tflite-support's metadata_schema.fbs 1.1.0.
SCHEMA = """
file_identifier "M001";
table F { name:string; description:string; type:byte; locale:string; }
table Feature {}
table Size { width:uint; height:uint; }
table Picture { color_space:byte; default_size:Size; }
table Box {}
union Properties { Feature, Picture, Box }
table Range { min:int; max:int; }
table Content { content_properties:Properties; range:Range; }
table Normalization { mean:[float]; std:[float]; }
union Options { Normalization }
table Unit { options:Options; }
table Stats { max:[float]; min:[float]; }
table T { name:string; description:string; dimension_names:[string]; content:Content; process_units:[Unit];
  stats:Stats; associated_files:[F]; }
table G { name:string; description:string; input_tensor_metadata:[T]; output_tensor_metadata:[T]; }
table M { name:string; description:string; version:string; subgraph_metadata:[G]; author:string; license:string;
  associated_files:[F]; min_parser_version:string; }
root_type M;
"""


def test_tflite_metadata_are_those_that_image_classifiers_read(file: bytes, tmp_path: Path) -> None:
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    model = flatbuffer.parse(file, "a.tflite")
    (entry,) = [entry for entry in model.metadata if entry.name == metadata.ENTRY.encode()]
    (tmp_path / "m.fbs").write_text(SCHEMA)
    (tmp_path / "m.bin").write_bytes(bytes(model.buffers[entry.buffer].data))
    _flatc_decompile(str(tmp_path), str(tmp_path / "m.fbs"), str(tmp_path / "m.bin"), [])  # checks the identifier too
    found = json.loads((tmp_path / "m.json").read_text())
    assert (found["name"], found["version"], found["min_parser_version"]) == ("tiny", "r1", "1.0.0")
    (graph,) = found["subgraph_metadata"]
    (taken,), (given,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    assert taken["content"]["content_properties_type"] == "Picture"
    assert taken["content"]["content_properties"] == {"color_space": 1, "default_size": {"width": 32, "height": 32}}
    assert [unit["options"] for unit in taken["process_units"]] == [{"mean": [0.0], "std": [1.0]}]
    assert taken["stats"] == {"max": [255.0], "min": [0.0]}
    assert "0.9" in taken["description"]
    assert given["content"]["content_properties_type"] == "Feature"
    assert [(f["name"], f["type"]) for f in given["associated_files"]] == [("labels.txt", 2)]


def test_tflite_labels_lie_uncompressed_behind_the_file(file: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        (packed,) = archive.infolist()
        assert (packed.filename, packed.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(packed).decode().splitlines() == list(LABELS)
        assert file[packed.header_offset :][:4] == b"PK\x03\x04"  # counted from the start of the whole file
    with pytest.raises(ValueError, match="does not fit in one line"):
        metadata.pack_labels(file, ["a\nb"])


def test_labels_for_other_classes_are_refused(programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    for name in registry.names():
        options = PackageOptions(image_input=True, mean=MEAN, std=STD, class_labels=("one", "two"))
        request = ConvertRequest(load_program(programs["fp32"].path), "fp32", tmp_path / "f", {}, options)
        with pytest.raises(TargetError, match=f"2 class labels for {CLASSES} logits"):
            registry.get(name).convert(request)


def test_a_pte_tells_an_app_how_to_feed_it(programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    from executorch.runtime import Runtime

    path = tmp_path / "a.pte"
    registry.get("executorch").convert(ConvertRequest(load_program(programs["fp32"].path), "fp32", path, {}, PICTURE))
    program = Runtime.get().load_program(path)
    told = {name: program.load_method(name).execute([]) for name in program.method_names if name != "forward"}
    assert told == {
        "layout": ["NHWC"],
        "colors": ["RGB"],
        "height": [32],
        "width": [32],
        "crop_pct": [0.9],
        "interpolation": ["bicubic"],
        "labels": list(LABELS),
    }
    probabilities, logits = program.load_method("forward").execute([torch.from_numpy(PIXELS[:1])])
    assert np.allclose(probabilities.numpy(), np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "same"),
    [(0.0187, True), (2 / 255, False)],  # the second: every odd pixel is half-way between two steps
    ids=["between ties", "on ties"],
)
def test_a_product_and_a_sum_stand_for_the_divisions_where_no_pixel_is_near_half_way(scale: float, same: bool) -> None:
    mean, std = (0.0, 0.406, 0.456), (1.0, 0.225, 0.224)
    factor, offset = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    assert _same_steps(mean, std, factor, offset, scale) == same
    assert not _same_steps(mean, std, factor, [o + scale for o in offset], scale)  # one step beside
