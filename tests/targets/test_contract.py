"""What every target promises, for every precision it lists: convert, inspect, load, run, and fail cleanly."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_hybrid import CLASSES, INPUT_SIZE, SavedProgram

from targets import registry
from targets.match import match_scales
from targets.program import load_program, trained_quant_params
from targets.types import PRECISIONS, STATIC, WEIGHT_ONLY, GraphFacts, Precision, Probe, TargetError, Unavailable
from targets.worker.host import HostWorker

NAMES = registry.variants()
#: Core ML packages with compressed weights alone have tests of their own (test_coreml_options.py).
CELLS = [
    (name, precision)
    for name in NAMES
    for precision in registry.get(name).schemes.made
    if (name, precision) not in {("coreml", weights) for weights in WEIGHT_ONLY}
]
RUNTIMES = [(name, runtime) for name in NAMES for runtime in registry.get(name).runtimes]
IDS = "-".join

# Largest difference to the torch program, of the largest logit. int8 runtimes round and accumulate in another order;
# files that are made from the float program differ from it by what they round. From w8 on about twice what was
# measured; w8a16, against its own program, five times.
TOLERANCE = {
    "fp32": 1e-4, "fp16": 0.02, "int8": 0.06, "w8a16": 5e-4, "w8": 0.03, "w4": 0.15,
    "int8-dynamic": 0.02, "w4a8-dynamic": 0.1,
}  # fmt: skip
#: Weights by how they are stored, of stem, depthwise, qkv, proj, fc1, fc2 and head. fc2 alone has 32 input channels.
WEIGHTS = {
    "fp32": {"fp32": 7}, "fp16": {"fp16": 7}, "int8": {"int8": 7}, "w8a16": {"int8": 7}, "w8": {"int8": 7},
    "w4": {"int4": 6, "int8": 1}, "int8-dynamic": {"int8": 6, "fp32": 1},
    "w4a8-dynamic": {"int8": 5, "int4": 1, "fp32": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    with HostWorker(timeout_s=600) as worker:
        yield worker


@dataclass(frozen=True)
class Artifact:
    target: str
    precision: Precision
    path: Path


@dataclass(frozen=True)
class Converted:
    artifact: Artifact
    program: SavedProgram
    facts: GraphFacts


@pytest.fixture(scope="module")
def probes(worker: HostWorker) -> dict[str, Probe]:
    return {name: worker.probe(name) for name in NAMES}


@pytest.fixture(scope="module", params=CELLS, ids=IDS)
def converted(
    request: pytest.FixtureRequest,
    worker: HostWorker,
    programs: dict[str, SavedProgram],
    tmp_path_factory: pytest.TempPathFactory,
) -> Converted:
    """Converted once in the worker, whatever number of tests look at it."""
    target, precision = request.param
    program = programs[precision]
    output = tmp_path_factory.mktemp(f"{target}-{precision}") / f"tiny{registry.get(target).suffix}"
    worker.convert(target, program.path, program.sha256, precision, output, {"origin": "contract suite"})
    return Converted(Artifact(target, precision, output), program, worker.inspect(target, output))


@pytest.mark.parametrize("name", NAMES)
def test_the_target_describes_itself(name: str) -> None:
    target = registry.get(name)
    assert target.name == name
    assert target.suffix.startswith(".")
    assert target.runtimes
    assert set(target.schemes.made) <= set(PRECISIONS)
    assert {"fp32", "int8"} & set(target.schemes.made)


@pytest.mark.parametrize("name", NAMES)
def test_the_probe_names_every_runtime_and_its_versions(name: str, probes: dict[str, Probe]) -> None:
    probe = probes[name]
    assert set(probe.run) == set(registry.get(name).runtimes)
    assert probe.versions
    assert probe.convert.available, probe.convert.reason


def test_the_file_is_where_it_was_asked_for(converted: Converted) -> None:
    assert converted.artifact.path.exists()
    assert converted.facts.size_bytes == _size_bytes(converted.artifact.path)


def test_the_file_takes_one_image_and_gives_its_logits(converted: Converted) -> None:
    (image,), (logits,) = converted.facts.inputs, converted.facts.outputs
    assert sorted(image.shape) == sorted((1, *INPUT_SIZE))  # any layout
    assert logits.shape == (1, CLASSES)


def test_the_file_holds_operators(converted: Converted) -> None:
    facts = converted.facts
    assert sum(facts.operators.values()) > 5
    known = (facts.delegated is None, facts.fallback is None, facts.partitions is None)
    assert len(set(known)) == 1, "delegated, fallback and partitions are known together or not at all"
    if facts.delegated is not None and facts.fallback is not None:
        assert facts.delegated > 0
        assert facts.delegated + sum(facts.fallback.values()) == sum(facts.operators.values())


def test_weights_have_the_precision_of_the_file(converted: Converted) -> None:
    facts, precision = converted.facts, converted.artifact.precision
    assert len(facts.float_weight_names) == facts.float_weights
    wanted = WEIGHTS[precision]
    stored = {kind.removeprefix("u"): count for kind, count in facts.weights_by_dtype.items()}  # Core ML's are uint8
    assert {kind: stored.get(kind, 0) for kind in wanted if "int" in kind} == {
        kind: count for kind, count in wanted.items() if "int" in kind
    }
    assert facts.int8_weights == wanted.get("int8", 0)
    # A constant of the arithmetic between layers may be a product's operand, and is counted with the float weights.
    floats = wanted.get("fp32", 0) + wanted.get("fp16", 0)
    assert floats <= facts.float_weights <= floats + (floats > 0), facts.float_weight_names
    assert bool(facts.quant_params) == (precision not in ("fp32", "fp16"))


def test_weights_alone_leave_every_operator_in_float(converted: Converted) -> None:
    if converted.artifact.precision in WEIGHT_ONLY:
        integer = {kind for kind in converted.facts.operators_by_dtype if "int" in kind.rpartition(" ")[2]}
        assert not integer - {"RESHAPE int32", "SHAPE int32"}


def test_the_trained_scales_are_in_the_file(converted: Converted) -> None:
    trained = trained_quant_params(load_program(converted.program.path))
    if converted.artifact.precision not in STATIC:
        assert not trained
        return
    match = match_scales(trained, converted.facts.quant_params, registry.get(converted.artifact.target).scale_rtol)
    assert match.total >= 14
    assert match.found >= 0.95 * match.total, match.missing


def test_every_runtime_agrees_with_torch_or_says_why_it_cannot(
    converted: Converted, worker: HostWorker, probes: dict[str, Probe]
) -> None:
    artifact, program = converted.artifact, converted.program
    for runtime, capability in probes[artifact.target].run.items():
        if not capability.available:
            with pytest.raises(Unavailable) as caught:
                worker.open(artifact.target, artifact.path, runtime, threads=1)
            assert caught.value.cause
            continue
        session = worker.open(artifact.target, artifact.path, runtime, threads=1)
        logits = session.infer(program.images)
        assert logits.dtype == np.float32
        assert logits.shape == program.logits.shape
        error = np.abs(logits - program.logits).max() / np.abs(program.logits).max()
        assert error < TOLERANCE[artifact.precision], f"{runtime}: {error:.4f}"
        # State kept between images, or images mixed up, would show here.
        assert np.array_equal(session.infer(program.images[::-1])[::-1], logits)
        samples_ms = session.time(program.images, 5)
        assert len(samples_ms) == 5
        assert all(0 < sample < 1000 for sample in samples_ms)
        session.close()
        with pytest.raises(TargetError, match=r"^run: .*session"):
            session.infer(program.images)


@pytest.mark.parametrize("converted", [("tflite", "fp32")], indirect=True, ids=IDS)
def test_memory_is_told_of_the_only_file_that_a_process_opened(converted: Converted) -> None:
    artifact, image = converted.artifact, converted.program.images[:1]
    with HostWorker(timeout_s=120) as worker:
        session = worker.open(artifact.target, artifact.path, "litert", threads=1)
        peak = session.peak_bytes(image)
        if sys.platform == "linux":
            assert peak is not None
            # The interpreter's import alone is 20 MB: it was there before.
            assert artifact.path.stat().st_size < peak < 15_000_000
        worker.open(artifact.target, artifact.path, "litert", threads=1)
        assert session.peak_bytes(image) is None


def test_images_of_another_size_are_refused(converted: Converted, worker: HostWorker, probes: dict[str, Probe]) -> None:
    for runtime, capability in probes[converted.artifact.target].run.items():
        if capability.available:
            session = worker.open(converted.artifact.target, converted.artifact.path, runtime, threads=1)
            with pytest.raises(TargetError) as caught:
                session.infer(np.zeros((1, 3, 16, 16), np.float32))
            assert caught.value.stage == "run"
            session.close()


@pytest.mark.parametrize(("name", "runtime"), RUNTIMES, ids=IDS)
def test_a_missing_file_is_told_by_name(name: str, runtime: str, worker: HostWorker, tmp_path: Path) -> None:
    path = tmp_path / f"nothing{registry.get(name).suffix}"
    with pytest.raises(TargetError, match="nothing") as caught:
        worker.inspect(name, path)
    assert caught.value.stage == "inspect"
    with pytest.raises(TargetError) as caught:
        worker.open(name, path, runtime, threads=1)
    assert caught.value.stage == "load"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_runtime_is_unavailable(name: str, worker: HostWorker, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="abacus"):
        worker.open(name, tmp_path / "nothing", "abacus", threads=1)


@pytest.mark.parametrize("converted", [cell for cell in CELLS if cell[1] == "int8"], indirect=True, ids=IDS)
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_file_is_an_error_and_not_the_end(
    damage: str, converted: Converted, probes: dict[str, Probe], tmp_path: Path
) -> None:
    target = converted.artifact.target
    path = tmp_path / converted.artifact.path.name
    _copy_damaged(converted.artifact.path, path, damage)
    with HostWorker(timeout_s=120) as worker:
        with pytest.raises(TargetError) as caught:
            worker.inspect(target, path)
        assert caught.value.stage == "inspect"
        assert worker.hello()["pid"], "reading a file takes no runtime, and nothing can abort"
        for runtime, capability in probes[target].run.items():
            with pytest.raises(TargetError) as caught:
                worker.open(target, path, runtime, threads=1).infer(converted.program.images)
            assert isinstance(caught.value, Unavailable) is not capability.available
            assert caught.value.stage in ("load", "run")


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_program_is_not_converted(
    name: str, worker: HostWorker, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(TargetError, match="sha256") as caught:
        worker.convert(name, programs["fp32"].path, "0" * 64, "fp32", output)
    assert caught.value.stage == "convert"
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "precision"),
    [(n, p) for n in NAMES for p in PRECISIONS if p not in registry.get(n).schemes.made],
)
def test_a_precision_that_is_not_listed_is_refused_with_the_reason(
    name: str, precision: str, worker: HostWorker, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    program = programs[precision]
    with pytest.raises(TargetError, match=precision) as caught:
        worker.convert(name, program.path, program.sha256, precision, tmp_path / "out")  # type: ignore[arg-type]
    assert caught.value.stage == "convert"


def _size_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _copy_damaged(source: Path, path: Path, damage: str) -> None:
    """Damage the file, or in a folder its largest file (the weights of an .mlpackage) and its model file."""
    if source.is_dir():
        shutil.copytree(source, path)
        files = [file for file in path.rglob("*") if file.is_file()]
    else:
        shutil.copy(source, path)
        files = [path]
    for file in files:
        data = file.read_bytes()
        file.write_bytes({"truncated": data[: len(data) // 2], "foreign": b"PK\x03\x04" * 500, "empty": b""}[damage])
