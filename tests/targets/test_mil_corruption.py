"""Broken packages: the reference refuses each with one line that names it, and never computes a wrong result."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import save_program

from targets.coreml.interpreter.arithmetic import FP32
from targets.coreml.interpreter.program import load_program
from targets.coreml.package import INPUT, OUTPUT, SEAL, seal
from targets.coreml.units import REFERENCE_PREFIX
from targets.types import TargetError, Unavailable
from targets.worker.host import HostWorker

RUNTIME = REFERENCE_PREFIX + FP32.name
NAME = "broken.mlpackage"
IMAGE = (1, 3, 8, 8)
CLASSES = 5

_DATA = Path("Data/com.apple.CoreML")
MODEL, WEIGHTS, MANIFEST = _DATA / "model.mlmodel", _DATA / "weights" / "weight.bin", Path("Manifest.json")


def _build(seed: int) -> Callable[..., list[Any]]:
    """A convolution and a linear layer, whose weights go to the weights file."""
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    head, bias = random.normal(size=(CLASSES, 4 * 36)).astype(np.float32), random.normal(size=CLASSES)

    def build(**inputs: Any) -> list[Any]:
        from coremltools.converters.mil.mil import Builder as mb

        x = mb.relu(x=mb.conv(x=inputs[INPUT], weight=kernel, pad_type="valid"))
        return [mb.linear(x=mb.reshape(x=x, shape=[1, 4 * 36]), weight=head, bias=bias.astype(np.float32))]

    return build


def _save(path: Path, seed: int) -> None:
    import coremltools as ct

    save_program(_build(seed), {INPUT: np.zeros(IMAGE, np.float32)}, path, ct.target.iOS17, 8)
    with _edited(path) as model:
        model.description.output[0].name = OUTPUT
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        block.outputs[0] = OUTPUT
        block.operations[-1].outputs[0].name = OUTPUT


@contextlib.contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """The Model protobuf of a package, written back when the block ends."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((path / MODEL).read_bytes())
    yield model
    (path / MODEL).write_bytes(model.SerializeToString(deterministic=True))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole package that another program wrote: it has no seal."""
    path = tmp_path_factory.mktemp("foreign") / NAME
    _save(path, seed=0)
    return path


@pytest.fixture(scope="module")
def sealed(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as one of ours."""
    path = tmp_path_factory.mktemp("sealed") / NAME
    shutil.copytree(foreign, path)
    with _edited(path) as model:
        model.description.metadata.userDefined["edge_t2t.model"] = "made for this test"
    seal(path)
    return path


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    """One for all: a native abort of one package would show in all that follow."""
    with HostWorker(timeout_s=120) as process:
        yield process


def _operations(model: Any) -> Any:
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def _truncate(file: Path, part: float) -> Callable[[Path], None]:
    """Keep this part of the file, or this many bytes less than all where it is negative."""

    def break_it(path: Path) -> None:
        data = (path / file).read_bytes()
        (path / file).write_bytes(data[: int(part) if part < 0 else int(part * len(data))])

    return break_it


def _overwrite(file: Path, content: bytes) -> Callable[[Path], None]:
    def break_it(path: Path) -> None:
        data = (path / file).read_bytes()
        (path / file).write_bytes(content + data[len(content) :])

    return break_it


def _remove(file: Path) -> Callable[[Path], None]:
    def break_it(path: Path) -> None:
        shutil.rmtree(path / file) if (path / file).is_dir() else (path / file).unlink()

    return break_it


def _manifest(content: Any) -> Callable[[Path], None]:
    """Replace the manifest by text or JSON, or by what a function makes of it."""

    def break_it(path: Path) -> None:
        made = content(json.loads((path / MANIFEST).read_text())) if callable(content) else content
        (path / MANIFEST).write_text(made if isinstance(made, str) else json.dumps(made))

    return break_it


def _with_paths(suffix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        for item in manifest["itemInfoEntries"].values():
            item["path"] += suffix
        return manifest

    return change


def _protobuf(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def break_it(path: Path) -> None:
        with _edited(path) as model:
            change(model)

    return break_it


def _flip(file: Path, seed: int, count: int = 1) -> Callable[[Path], None]:
    """Other bytes at random places; in the weights file only in what tensors are made of, behind the header."""

    def break_it(path: Path) -> None:
        random = np.random.default_rng(seed)
        data = bytearray((path / file).read_bytes())
        first = len(data) // 2 if file == WEIGHTS else 0
        for place in random.integers(first, len(data), count):
            data[place] ^= int(random.integers(1, 256))
        (path / file).write_bytes(bytes(data))

    return break_it


def _swap_files(path: Path) -> None:
    model, weights = (path / MODEL).read_bytes(), (path / WEIGHTS).read_bytes()
    (path / MODEL).write_bytes(weights)
    (path / WEIGHTS).write_bytes(model)


def _swap_weights(path: Path) -> None:
    """Those of a package of the same network, trained differently."""
    other = path.with_name("other.mlpackage")
    _save(other, seed=1)
    shutil.copy(other / WEIGHTS, path / WEIGHTS)


def _replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"no folder")


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _rename_operator(model: Any) -> None:
    next(op for op in _operations(model) if op.type == "conv").type = "convolve_twice"


def _read_unknown_variable(model: Any) -> None:
    relu = next(op for op in _operations(model) if op.type == "relu")
    relu.inputs["x"].arguments[0].name = "nobody"


def _rename_attribute(model: Any) -> None:
    """An input that the operator does not have."""
    inputs = next(op for op in _operations(model) if op.type == "relu").inputs
    inputs["strength"].CopyFrom(inputs["x"])


def _lose_attribute(model: Any) -> None:
    del next(op for op in _operations(model) if op.type == "linear").inputs["weight"]


def _declare_other_dtype(model: Any) -> None:
    """The kernel as integers, over the bytes of floats."""
    from coremltools.proto import MIL_pb2

    constants = [op for op in _operations(model) if op.type == "const" and "weight" in op.outputs[0].name]
    for holder in (constants[0].outputs[0].type, constants[0].attributes["val"].type):
        holder.tensorType.dataType = MIL_pb2.INT32


def _declare_unknown_dtype(model: Any) -> None:
    (function,) = model.mlProgram.functions.values()
    function.inputs[0].type.tensorType.dataType = 9999


def _declare_other_shape(model: Any) -> None:
    relu = next(op for op in _operations(model) if op.type == "relu")
    relu.outputs[0].type.tensorType.dimensions[1].constant.size += 1


def _lead_outside_of_weights(model: Any) -> None:
    constant = next(op for op in _operations(model) if op.attributes["val"].HasField("blobFileValue"))
    constant.attributes["val"].blobFileValue.offset = 1 << 40


def _lead_to_another_file(model: Any) -> None:
    constant = next(op for op in _operations(model) if op.attributes["val"].HasField("blobFileValue"))
    constant.attributes["val"].blobFileValue.fileName = "@model_path/weights/elsewhere.bin"


def _lose_function(model: Any) -> None:
    model.mlProgram.functions.clear()


def _lose_operations(model: Any) -> None:
    del _operations(model)[:]


def _lose_program(model: Any) -> None:
    model.ClearField("mlProgram")


def _become_neural_network(model: Any) -> None:
    model.neuralNetwork.layers.add().name = "nothing"


def _set_version(version: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.specificationVersion = version

    return change


def _give_other_output(model: Any) -> None:
    model.description.output[0].name = "nobody"


def _lose_seal(model: Any) -> None:
    model.description.metadata.userDefined.pop(SEAL, None)


def _change_seal(model: Any) -> None:
    model.description.metadata.userDefined[SEAL] = "0" * 64


@dataclass(frozen=True)
class Breakage:
    """A way to break a package. `silent`: only the seal can tell, as what is left is a package like any other."""

    apply: Callable[[Path], None]
    silent: bool = False


BREAKAGES: dict[str, Breakage] = {
    "model of no bytes": Breakage(_truncate(MODEL, 0)),
    "model cut at a tenth": Breakage(_truncate(MODEL, 0.1)),
    "model cut in the middle": Breakage(_truncate(MODEL, 0.5)),
    "model cut at nine tenths": Breakage(_truncate(MODEL, 0.9)),
    "model without its last byte": Breakage(_truncate(MODEL, -1)),
    "weights of no bytes": Breakage(_truncate(WEIGHTS, 0)),
    "weights cut inside the header": Breakage(_truncate(WEIGHTS, 0.01)),
    "weights cut in the middle": Breakage(_truncate(WEIGHTS, 0.5)),
    "weights cut at nine tenths": Breakage(_truncate(WEIGHTS, 0.9)),
    "no model": Breakage(_remove(MODEL)),
    "no weights file": Breakage(_remove(WEIGHTS)),
    "no weights folder": Breakage(_remove(WEIGHTS.parent)),
    "no data": Breakage(_remove(Path("Data"))),
    "no manifest": Breakage(_remove(MANIFEST)),
    "manifest that is no JSON": Breakage(_manifest("fileFormatVersion: 1")),
    "manifest of no bytes": Breakage(_manifest("")),
    "manifest that is a list": Breakage(_manifest([1, 2])),
    "manifest of something else": Breakage(_manifest({"name": "app", "version": "1.0.0"})),
    "manifest without items": Breakage(_manifest(lambda m: {**m, "itemInfoEntries": {}})),
    "manifest with an unknown root": Breakage(_manifest(lambda m: {**m, "rootModelIdentifier": "nobody"})),
    "manifest with wrong paths": Breakage(_manifest(_with_paths(".old"))),
    "manifest with an item of text": Breakage(
        _manifest(lambda m: {**m, "itemInfoEntries": dict.fromkeys(m["itemInfoEntries"], "model.mlmodel")})
    ),
    "model with a zeroed head": Breakage(_overwrite(MODEL, bytes(64))),
    "weights with a zeroed head": Breakage(_overwrite(WEIGHTS, bytes(64))),
    "weights with a zeroed table": Breakage(_overwrite(WEIGHTS, bytes(256))),
    "model of text": Breakage(_overwrite(MODEL, b"version https://git-lfs.github.com/spec/v1\n")),
    "model and weights swapped": Breakage(_swap_files),
    "weights of another package": Breakage(_swap_weights, silent=True),
    "a file for a folder": Breakage(_replace_by_file),
    "an empty folder": Breakage(_empty),
    "nothing there": Breakage(shutil.rmtree),
    "unknown operator": Breakage(_protobuf(_rename_operator)),
    "unknown variable": Breakage(_protobuf(_read_unknown_variable)),
    "unknown attribute": Breakage(_protobuf(_rename_attribute)),
    "an operator without its weight": Breakage(_protobuf(_lose_attribute)),
    "weight of another dtype": Breakage(_protobuf(_declare_other_dtype)),
    "input of an unknown dtype": Breakage(_protobuf(_declare_unknown_dtype)),
    "weights beyond the file": Breakage(_protobuf(_lead_outside_of_weights)),
    "weights in a file that is not there": Breakage(_protobuf(_lead_to_another_file)),
    "no function": Breakage(_protobuf(_lose_function)),
    "no operations": Breakage(_protobuf(_lose_operations)),
    "no program": Breakage(_protobuf(_lose_program)),
    "a neural network of old": Breakage(_protobuf(_become_neural_network)),
    "specification version 0": Breakage(_protobuf(_set_version(0))),
    "specification version 99": Breakage(_protobuf(_set_version(99))),
    "another output": Breakage(_protobuf(_give_other_output)),
    "another shape of a result": Breakage(_protobuf(_declare_other_shape), silent=True),
    "seal lost": Breakage(_protobuf(_lose_seal), silent=True),
    "seal changed": Breakage(_protobuf(_change_seal), silent=True),
    **{f"flipped bit of a weight {s}": Breakage(_flip(WEIGHTS, s), silent=True) for s in range(4)},
    **{f"flipped bytes of the model {s}": Breakage(_flip(MODEL, s, 3), silent=True) for s in range(6)},
}


def _broken(package: Path, breakage: Breakage, tmp_path: Path) -> Path:
    path = tmp_path / NAME
    shutil.copytree(package, path)
    breakage.apply(path)
    return path


def _assert_refused(error: TargetError) -> None:
    """In one line that names the package, and not as something that this machine cannot do."""
    assert error.stage == "load"
    assert not isinstance(error, Unavailable)
    assert NAME in error.cause
    assert "\n" not in error.cause
    assert error.cause.count("convert ") == 1, error.cause  # what to do, told once


def _image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)


def _logits(path: Path) -> np.ndarray:
    return load_program(path).predict({INPUT: _image()}, FP32)[OUTPUT]


def test_whole_packages_run(foreign: Path, sealed: Path, worker: HostWorker) -> None:
    expected = _logits(foreign)
    assert expected.shape == (1, CLASSES)
    assert np.abs(expected).min() > 0
    np.testing.assert_array_equal(_logits(sealed), expected)
    for package in (foreign, sealed):
        np.testing.assert_array_equal(worker.open("coreml", package, RUNTIME, 1).infer(_image()), expected)


def test_thirty_ways_to_break_a_package() -> None:
    assert len(BREAKAGES) >= 30


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_sealed_package_is_refused(name: str, sealed: Path, worker: HostWorker, tmp_path: Path) -> None:
    path = _broken(sealed, BREAKAGES[name], tmp_path)

    with pytest.raises(TargetError) as refused:
        worker.open("coreml", path, RUNTIME, 1)

    _assert_refused(refused.value)
    assert worker.hello()["pid"], "the worker outlived the package"


@pytest.mark.parametrize("name", [name for name, breakage in BREAKAGES.items() if not breakage.silent])
def test_broken_package_of_others_is_refused(name: str, foreign: Path, worker: HostWorker, tmp_path: Path) -> None:
    """Without a seal, the loader alone has to see it."""
    path = _broken(foreign, BREAKAGES[name], tmp_path)

    with pytest.raises(TargetError) as refused:
        worker.open("coreml", path, RUNTIME, 1)

    _assert_refused(refused.value)
    assert worker.hello()["pid"], "the worker outlived the package"


@pytest.mark.parametrize("file", [MODEL, WEIGHTS, MANIFEST], ids=lambda file: file.name)
def test_no_flipped_byte_of_a_sealed_package_changes_a_result(file: Path, sealed: Path, tmp_path: Path) -> None:
    """Refused, or the same as before: a description in the manifest may change, a logit may not."""
    expected = _logits(sealed)
    refused = 0
    for seed in range(30):
        path = _broken(sealed, Breakage(_flip(file, seed)), tmp_path)
        try:
            np.testing.assert_array_equal(_logits(path), expected)
        except TargetError as error:
            _assert_refused(error)
            refused += 1
        shutil.rmtree(path)
    assert refused >= (10 if file == MANIFEST else 30)


def test_what_is_unknown_is_named(foreign: Path, tmp_path: Path) -> None:
    unknown = {"unknown operator": "convolve_twice", "unknown attribute": "strength", "another output": "nobody"}
    for name, word in unknown.items():
        path = _broken(foreign, BREAKAGES[name], tmp_path)
        with pytest.raises(TargetError, match=word) as refused:
            load_program(path)
        assert refused.value.stage == "load"
        shutil.rmtree(path)
