"""The QDQ program in integers: its rounding by hand figures, and the same logits, bit by bit, as in the runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hybrid import SavedProgram, save_program
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare, to_qdq_program
from pipeline.quantization.integer import Addition, Codes, IntegerProgram, Sums
from pipeline.quantization.quantizer import Scheme
from targets import registry
from targets.worker.host import HostWorker

SIZE = (3, 32, 32)


class Depthwise(nn.Module):
    """Inverted residual blocks as in MobileNetV2 and EfficientNet-Lite, deep enough for a difference to grow.

    One channel of the first convolution has next to no weight and a large bias: its int32 bias is beyond 2^24.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(nn.ModuleList(self._block()) for _ in range(12))
        self.head = nn.Linear(16, 10)
        with torch.no_grad():
            self.stem.weight[3] *= 1e-6
            self.stem_norm.bias[3] = 1.5

    @staticmethod
    def _block() -> list[nn.Module]:
        return [
            nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64),
            nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), nn.BatchNorm2d(64),
            nn.Conv2d(64, 16, 1, bias=False), nn.BatchNorm2d(16),
        ]  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardtanh(self.stem_norm(self.stem(x)), 0.0, 6.0)  # nn.ReLU6; aten.relu6 is not fused
        for expand, norm1, depthwise, norm2, project, norm3 in self.blocks:  # type: ignore[misc]
            inner = functional.hardtanh(norm2(depthwise(functional.relu(norm1(expand(x))))), 0.0, 6.0)
            x = x + norm3(project(inner))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    torch.manual_seed(0)
    model = Depthwise().train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(16, *SIZE))  # running statistics
    graph = prepare(model.eval(), SIZE, Scheme())
    calibrate(graph, [torch.randn(16, *SIZE)], 16, torch.device("cpu"))
    return to_qdq_program(graph, SIZE, settled=True)


@pytest.fixture(scope="module")
def saved(program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> SavedProgram:
    path = tmp_path_factory.mktemp("depthwise") / "qdq.pt2"
    return save_program(program, path, torch.randn(64, *SIZE, generator=torch.Generator().manual_seed(1)))


def in_integers(program: ExportedProgram, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return IntegerProgram(program.module())(torch.from_numpy(images.copy())).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "runtime"), [("executorch", "executorch"), ("tflite", "litert"), ("tflite", "tensorflow")]
)
def test_a_runtime_computes_the_same_logits_to_the_last_bit(
    name: str, runtime: str, program: ExportedProgram, saved: SavedProgram, tmp_path: Path
) -> None:
    with HostWorker(timeout_s=600) as worker:
        output = tmp_path / f"depthwise{registry.get(name).suffix}"
        worker.convert(name, saved.path, saved.sha256, "int8", output)
        found = worker.open(name, output, runtime, 1).infer(saved.images)
    mine = in_integers(program, saved.images)
    if runtime == "tensorflow":  # differs here and there; why is not known
        step = np.diff(np.unique(mine)).min()
        assert np.abs(mine - found).max() < 2.5 * step
        assert (mine == found).mean() > 0.9
    else:
        np.testing.assert_array_equal(mine, found)


def test_biases_are_on_the_grid_of_the_runtimes_and_no_weight_is_half_way(program: ExportedProgram) -> None:
    module = program.module()
    checked = 0
    for node in module.graph.nodes:
        if node.target not in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            continue
        image, weight, bias = node.args[:3]
        scales = getattr(module, weight.args[1].target).double()
        steps = module.get_parameter(bias.target).double() / (scales * image.args[1])
        assert ((steps - steps.round()).abs() < 1e-6 * steps.abs().clamp(min=100)).all()
        source = module.get_parameter(weight.args[0].args[0].target).double()
        whole = source / scales.view(-1, *[1] * (source.dim() - 1))
        assert (whole - whole.round()).abs().max() < 0.4995
        checked += 1
    assert checked == 38


def test_what_is_float_in_a_program_stays_so(programs: dict[str, SavedProgram]) -> None:
    """Attention, LayerNorm and GELU of the hybrid; all of a program with int16 activations."""
    from targets.program import load_program

    for precision, tolerance in {"int8": 0.2, "w8a16": 1e-6}.items():
        one = programs[precision]
        found = in_integers(load_program(one.path), one.images)
        assert np.abs(found - one.logits).max() <= tolerance * np.abs(one.logits).max()


def test_a_sum_is_rounded_once_and_halves_to_even() -> None:
    sums = Sums(torch.tensor([[-3.0, 1.0, 3.0, 5.0, 100.0]]), torch.tensor(0.25), low=0.0, high=6.0)
    # -0.75 is clamped; 0.25, 0.75, 1.25 and the clamp's 6 are half of a scale of 0.5, one and a half, ...
    assert sums.rounded(0.5, zero_point=-128).tolist() == [[-128, -128, -126, -126, -116]]
    average = Sums(torch.tensor([[10.0, 11.0]]), torch.tensor(0.5), count=4)
    assert average.rounded(0.5, zero_point=0).tolist() == [[2, 3]]  # 2.5 and 2.75 steps
    assert average.rounded(0.5, zero_point=1).tolist() == [[4, 4]]  # the zero point is rounded with them: 3.5 and 3.75
    assert average.real().tolist() == [[1.25, 1.375]]


def test_an_addition_rounds_halves_up() -> None:
    a = Codes(torch.tensor([1.0, -1.0, 3.0, -3.0]), torch.tensor(0.5))
    b = Codes(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor(0.25))
    assert Addition(a, b).rounded(1.0, zero_point=0).tolist() == [1, 0, 2, -1]  # of 0.5, -0.5, 2 and -1
    tiny = Addition(Codes(torch.tensor([1.0]), torch.tensor(1e-6)), Codes(torch.tensor([2.0]), torch.tensor(1e-6)))
    assert tiny.rounded(1.0, zero_point=3).tolist() == [3]  # beyond XNNPACK's multipliers
