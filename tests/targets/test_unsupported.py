"""An operator that a converter does not know is told by name, for every target."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from targets import registry
from targets.types import TargetError
from targets.worker.host import HostWorker


class Bessel(nn.Module):
    """A convolution, and an operator that no mobile runtime has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.conv(x)).mean((2, 3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bessel") / "float.pt2"
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(Bessel().eval(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)
    return path


@pytest.mark.parametrize("name", registry.names())
def test_the_operator_is_named_and_nothing_is_written(name: str, program: Path, tmp_path: Path) -> None:
    output = tmp_path / f"out{registry.get(name).suffix}"
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    with HostWorker(timeout_s=300) as worker, pytest.raises(TargetError, match="bessel_j0") as caught:
        worker.convert(name, program, digest, "fp32", output)
    assert caught.value.stage == "convert"
    assert not output.exists()
