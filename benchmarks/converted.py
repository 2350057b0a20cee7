"""Models in; their fp32 and int8 files for ExecuTorch and TFLite, converted and inspected as `convert` does it, out.

Weights are random, with 1000 classes: the time of these networks depends on neither weights nor pictures.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.build import build
from pipeline.progress import progress
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import export, prepare, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from pipeline.rewrites.deploy import in_form
from targets import registry
from targets.types import GraphFacts
from targets.worker.host import HostWorker

Runtime = Literal["executorch", "tflite"]
Precision = Literal["fp32", "int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: The runtime of a target that is timed.
RUNTIME_OF: Mapping[Runtime, str] = {"executorch": "executorch", "tflite": "litert"}
CONTROL = "mobilenet_v2"
SIDE, CLASSES, CALIBRATION_IMAGES = 224, 1000, 4


@dataclass(frozen=True)
class Subject:
    """A network under its name in the tables, with the shape of its images and its products in a single inference."""

    name: str
    model: nn.Module
    shape: tuple[int, int, int] = (3, SIDE, SIDE)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of Linears, convolutions and matrix products, as torch counts them."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.model(torch.zeros(1, *self.shape))
        return int(counter.get_total_flops()) // 2


@dataclass(frozen=True)
class File:
    path: Path
    facts: GraphFacts


def zoo(name: str, form: str = "deploy") -> nn.Module:
    torch.manual_seed(0)
    model, _ = build(name, CLASSES, SIDE)
    return in_form(model.eval(), form)


class LargeProducts(nn.Module):
    """Four products of 768 x 1024 by 1024 x 1024 in a row, out of an image of 512 px: the machine's own GEMM rate."""

    SHAPE = (3, 512, 512)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, 768, 1024)).flatten(1)


def convert_all(
    subjects: Sequence[Subject],
    folder: Path,
    runtimes: Sequence[Runtime] = RUNTIMES,
    precisions: Sequence[Precision] = PRECISIONS,
) -> dict[tuple[str, Runtime, Precision], File]:
    """Every subject for every runtime and precision, two conversions at a time.

    Raises:
        TargetError: a converter refuses one.
    """
    programs = {(s.name, p): _program(s, p, folder) for s in subjects for p in precisions}
    cells = [(name, runtime, precision) for name, precision in programs for runtime in runtimes]
    with progress("converting", len(cells), "files") as bar, ThreadPoolExecutor(2) as pool:

        def convert(cell: tuple[str, Runtime, Precision]) -> File:
            name, runtime, precision = cell
            program = programs[name, precision]
            path = program.with_suffix(registry.get(runtime).suffix)
            with HostWorker() as worker:
                worker.convert(runtime, program, hashlib.sha256(program.read_bytes()).hexdigest(), precision, path)
                file = File(path, worker.inspect(runtime, path))
            bar.advance(1)
            return file

        return dict(zip(cells, pool.map(convert, cells), strict=True))


def _program(subject: Subject, precision: Precision, folder: Path) -> Path:
    path = folder / f"{subject.name.replace(' ', '-')}.{precision}.pt2"
    images = torch.randn(CALIBRATION_IMAGES, *subject.shape, generator=torch.Generator().manual_seed(0))
    program_of(subject.model, precision, images, path)
    print(f"{subject.name} {precision}: exported", file=sys.stderr)
    return path


def program_of(model: nn.Module, precision: str, images: Tensor, path: Path) -> tuple[Path, np.ndarray]:
    """Write the program that `precision` is converted from, for int8 calibrated on `images`; and its logits of them."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    if precision == "int8":
        graph = prepare(model, shape, Scheme())
        calibrate(graph, [images], len(images), torch.device("cpu"))
        program = to_qdq_program(graph, shape)
    else:
        program = export(model, shape)
    torch.export.save(program, path)
    with torch.no_grad():
        return path, program.module()(images).numpy()
