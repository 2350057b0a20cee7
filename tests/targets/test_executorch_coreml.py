"""ExecuTorch's Core ML backend: what its `.pte` files hold, read back from the package inside the delegate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hybrid import CLASSES, INPUT_SIZE, SavedProgram, save_program
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.t2t_vit import TokenPerformer
from pipeline.quantization.graph import export
from targets import registry
from targets.coreml.interpreter.program import load_program
from targets.executorch.inspect import read_container
from targets.executorch_coreml.inspect import write_package
from targets.executorch_coreml.runner import BACKEND
from targets.types import GraphFacts, PackageOptions, TargetError, Unavailable
from targets.worker.host import HostWorker

NAME = "executorch-coreml"
#: Largest difference to torch, of the largest logit, in single precision.
TOLERANCE = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.06}
WEIGHTED_LAYERS = 7  # stem, depthwise, qkv, proj, fc1, fc2, head


@pytest.fixture(scope="module")
def worker() -> Iterator[HostWorker]:
    with HostWorker(timeout_s=600) as worker:
        yield worker


@pytest.fixture(scope="module")
def files(
    worker: HostWorker, programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """By precision."""
    folder = tmp_path_factory.mktemp("pte")
    paths = {precision: folder / f"tiny-{precision}.pte" for precision in registry.get(NAME).schemes.made}
    for precision, path in paths.items():
        program = programs[precision]
        worker.convert(NAME, program.path, program.sha256, precision, path)
    return paths


@pytest.fixture(scope="module")
def facts(worker: HostWorker, files: dict[str, Path]) -> dict[str, GraphFacts]:
    return {precision: worker.inspect(NAME, path) for precision, path in files.items()}


def payload_of(path: Path) -> bytes:
    container = read_container(path.read_bytes())
    return container.payload(container.plan["delegates"][0], BACKEND)


def test_everything_is_in_one_delegate(facts: dict[str, GraphFacts]) -> None:
    for each in facts.values():
        assert each.partitions == 1
        assert each.fallback == {}
        assert each.delegated == sum(each.operators.values())
        assert each.operators["linear"] == 5
        assert each.operators["conv"] == 2
        assert not each.cautions or all("Performer" not in caution for caution in each.cautions)


def test_weights_are_those_of_the_precision(facts: dict[str, GraphFacts]) -> None:
    assert (facts["int8"].int8_weights, facts["int8"].float_weights) == (WEIGHTED_LAYERS, 0)
    for precision in ("fp32", "fp16"):
        assert (facts[precision].int8_weights, facts[precision].float_weights) == (0, WEIGHTED_LAYERS)


def test_the_boundary_is_the_program_s_and_not_the_delegate_s(facts: dict[str, GraphFacts]) -> None:
    """Inside, an fp16 package gives half precision logits; outside the file takes and gives float32."""
    for each in facts.values():
        (image,), (logits,) = each.inputs, each.outputs
        assert (image.shape, image.dtype) == ((1, *INPUT_SIZE), "float32")
        assert (logits.shape, logits.dtype) == ((1, CLASSES), "float32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_model_inside_computes_what_torch_does(
    precision: str, files: dict[str, Path], programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    """With the MIL interpreter: the delegate's package is a whole Core ML model."""
    model = load_program(write_package(payload_of(files[precision]), tmp_path))
    program = programs[precision]
    (taken,) = model.inputs
    logits = np.concatenate(
        [model.predict({taken.name: image[None]})[model.outputs[0]] for image in program.images]
    ).astype(np.float32)
    assert np.abs(logits - program.logits).max() / np.abs(program.logits).max() < TOLERANCE[precision]


class Tokens(nn.Module):
    """Pixels as tokens through one Performer of the official form, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.performer = TokenPerformer(dim=3, token_dim=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.performer(x.flatten(2).transpose(1, 2)).mean(dim=1))


def test_a_performer_in_half_precision_is_cautioned_against(worker: HostWorker, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = save_program(export(Tokens().eval(), (3, 8, 8)), tmp_path / "tokens.pt2", torch.randn(2, 3, 8, 8))
    for precision in ("fp32", "fp16"):
        path = tmp_path / f"tokens-{precision}.pte"
        worker.convert(NAME, program.path, program.sha256, precision, path)  # type: ignore[arg-type]
        told = [caution for caution in worker.inspect(NAME, path).cautions if "Performer" in caution]
        assert len(told) == (precision == "fp16"), precision


def test_options_of_a_package_are_refused(
    worker: HostWorker, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    program = programs["fp32"]
    output = tmp_path / "out.pte"
    with pytest.raises(TargetError, match=r"no room for .*author='me'") as caught:
        worker.convert(
            NAME, program.path, program.sha256, "fp32", output, options=replace(PackageOptions(), author="me")
        )
    assert caught.value.stage == "convert"
    assert not output.exists()


def test_a_file_of_the_other_backend_is_told_by_name(
    worker: HostWorker, programs: dict[str, SavedProgram], files: dict[str, Path], tmp_path: Path
) -> None:
    program, xnnpack = programs["fp32"], tmp_path / "xnnpack.pte"
    worker.convert("executorch", program.path, program.sha256, "fp32", xnnpack)
    with pytest.raises(TargetError, match="a delegate for XnnpackBackend, of which only CoreMLBackend"):
        worker.inspect(NAME, xnnpack)
    with pytest.raises(TargetError, match="a delegate for CoreMLBackend, of which only XnnpackBackend"):
        worker.inspect("executorch", files["fp32"])


def flattened(nodes: list[dict[str, object]], content: bytes = b"content") -> bytes:
    """A payload: the files' bytes, then the reversed JSON of their tree."""
    return content + json.dumps({"nodes": nodes}).encode()[::-1]


def node(name: str, kind: int, children: dict[str, int] | None = None, size: int = 7) -> dict[str, object]:
    region = {"offset": 0, "size": 0 if kind else size}
    return {"name": name, "kind": kind, "children": children or {}, "dataRegion": region}


def tree(file: str, size: int = 7) -> list[dict[str, object]]:
    return [
        node(file, 0, size=size),
        node("model.mlpackage", 1, {file: 0}),
        node("lowered_module", 1, {"model.mlpackage": 1}),
    ]


def test_a_payload_is_written_as_it_was(tmp_path: Path) -> None:
    package = write_package(flattened(tree("weight.bin")), tmp_path)
    assert package == tmp_path / "model.mlpackage"
    assert (package / "weight.bin").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../evil", "/evil", "..", "a/../../evil", "a\\evil", ""])
def test_a_name_that_leads_out_of_the_package_is_refused(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ValueError, match="leads out of the package"):
        write_package(flattened(tree(name)), inside)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (flattened(tree("weight.bin", size=10_000)), "announces weight.bin"),
        (flattened(tree("weight.bin", size=-1)), "announces weight.bin"),
        (flattened([node("lowered_module", 1, {"model.mlmodelc": 0})]), "compiled"),
        (flattened([node("lowered_module", 1)]), r"no model\.mlpackage"),
        (flattened([node("model.mlpackage", 1, {"a": 0}), node("lowered_module", 1, {"model.mlpackage": 0})]), "nests"),
        (b'CMJR{"version": 1}', "several methods"),
        (b"PK\x03\x04" * 500, "Expecting value"),
        (b"", "Expecting value"),
    ],
)
def test_a_damaged_payload_is_refused(payload: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        write_package(payload, tmp_path)


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_flipped_bytes_are_an_error_or_change_no_fact_unseen(
    at: float, files: dict[str, Path], worker: HostWorker, tmp_path: Path
) -> None:
    """Whatever a hundred changed bytes do, inspection ends with facts or a TargetError of its stage."""
    data = bytearray(files["int8"].read_bytes())
    start = int(at * len(data))
    for i in range(start, min(start + 100, len(data))):
        data[i] ^= 0xFF
    path = tmp_path / "flipped.pte"
    path.write_bytes(data)
    try:
        assert isinstance(worker.inspect(NAME, path), GraphFacts)
    except TargetError as error:
        assert error.stage == "inspect"  # noqa: PT017
        assert "flipped.pte" in error.cause  # noqa: PT017


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_it_is_unavailable_here_and_says_what_to_do(worker: HostWorker, files: dict[str, Path]) -> None:
    with pytest.raises(Unavailable, match=rf"no Core ML runtime on {sys.platform}: take the \.pte file to a Mac"):
        worker.open(NAME, files["int8"], NAME, threads=1)


def test_it_is_made_only_when_asked_for() -> None:
    from pipeline.commands.options import targets_of

    assert NAME not in registry.names()
    assert registry.variants() == (*registry.names(), NAME)
    assert targets_of(None) == list(registry.names())
    assert targets_of(["executorch"], ["coreml"]) == [NAME]
    assert targets_of(["executorch"], ["xnnpack"]) == ["executorch"]
    assert targets_of(["executorch"], ["xnnpack", "coreml"]) == ["executorch", NAME]
    assert targets_of(["all"], ["coreml"]) == ["coreml", "tflite", NAME]
    assert targets_of([NAME]) == [NAME]


def test_a_backend_is_executorch_s_and_known() -> None:
    from pipeline.commands.options import targets_of

    with pytest.raises(UsageError, match=r"'corml' is not one of xnnpack, coreml\. Did you mean 'coreml'"):
        targets_of(["executorch"], ["corml"])
    with pytest.raises(UsageError, match="--backend is for --target executorch, not for tflite"):
        targets_of(["tflite"], ["coreml"])
