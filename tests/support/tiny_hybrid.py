"""A small network through the project's own quantization, saved as `.pt2` with what torch computes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from targets.types import PRECISIONS

INPUT_SIZE = (3, 32, 32)
CLASSES = 5


class TinyHybrid(nn.Module):
    """One of each operator family of the zoo: convolution with BatchNorm, depthwise, LayerNorm, attention, MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.norm1 = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.proj = nn.Linear(16, 16)
        self.norm2 = nn.LayerNorm(16)
        self.fc1 = nn.Linear(16, 32)
        self.fc2 = nn.Linear(32, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem_norm(self.stem(x)))
        x = functional.relu6(self.depthwise_norm(self.depthwise(x)))  # [B, 16, 8, 8]
        x = x.flatten(2).transpose(1, 2)  # [B, 64, 16]
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        attention = (q @ k.transpose(-2, -1) * 16**-0.5).softmax(dim=-1)
        x = x + self.proj(attention @ v)
        x = x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(dim=1))


@dataclass(frozen=True)
class SavedProgram:
    """A `.pt2` on disk, and what torch computes with it."""

    path: Path
    sha256: str
    images: np.ndarray  # [8, 3, 32, 32]
    logits: np.ndarray  # [8, 5]


def save_programs(folder: Path) -> dict[str, SavedProgram]:
    """By precision: QDQ programs for int8 and w8a16, the float program for all others."""
    from pipeline.quantization.graph import export, prepare, set_observers, to_qdq_program
    from pipeline.quantization.quantizer import Scheme

    torch.manual_seed(0)
    model = TinyHybrid().train()
    images = torch.randn(8, *INPUT_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)  # activations of a trained network's size, so that an operator left out shows
        for _ in range(20):
            model(torch.randn(16, *INPUT_SIZE))  # running statistics
    float_program = export(model.eval(), INPUT_SIZE)

    saved: dict[str, SavedProgram] = dict.fromkeys(
        PRECISIONS, save_program(float_program, folder / "float.pt2", images)
    )
    for precision, bits in {"int8": 8, "w8a16": 16}.items():
        prepared = prepare(model, INPUT_SIZE, Scheme(activation_bits=bits))
        set_observers(prepared, True)
        with torch.no_grad():
            for _ in range(4):
                prepared(torch.randn(16, *INPUT_SIZE))
        saved[precision] = save_program(to_qdq_program(prepared, INPUT_SIZE), folder / f"{precision}.pt2", images)
    return saved


def save_program(program: torch.export.ExportedProgram, path: Path, images: Tensor) -> SavedProgram:
    torch.export.save(program, path)
    with torch.no_grad():
        logits = program.module()(images)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return SavedProgram(path, digest, images.numpy(), logits.numpy())
