"""Weights that lie in memory in another order than row after row reach a TFLite file as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.quantization.graph import export
from targets.tflite import runner
from targets.tflite.target import TARGET as TFLITE
from targets.types import ConvertRequest

COUNT, WIDTH = 4, 64


class Slices(nn.Module):
    """Linears with transposed weights, as a rewrite or channels-last training leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 4 * WIDTH, bias=False) for _ in range(COUNT))
        for layer, rows in zip(self.layers, torch.randn(COUNT * WIDTH, 4 * WIDTH).chunk(COUNT), strict=True):
            layer.weight = nn.Parameter(rows.T.clone())

    def forward(self, x: Tensor) -> Tensor:
        parts = x.flatten(1)[:, : COUNT * WIDTH].split(WIDTH, dim=1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], dim=1)


def test_transposed_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Slices().eval(), torch.randn(3, 3, 16, 16)
    TFLITE.convert(ConvertRequest(export(model, (3, 16, 16)), "fp32", tmp_path / "m.tflite"))
    session = runner.load(tmp_path / "m.tflite", runner.LITERT, threads=1)
    with torch.no_grad():
        np.testing.assert_allclose(session.infer(images.numpy()), model(images).numpy(), rtol=1e-4, atol=1e-4)
