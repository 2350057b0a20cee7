"""The MIL reference: packages in; how near its logits are to torch, ExecuTorch and TFLite, and images a second, out.

    python benchmarks/mil_reference.py             the zoo, and twelve other timm families in fp32, fp16 and int8
    python benchmarks/mil_reference.py --zoo       the zoo alone (about 15 minutes on 2 slow cores)

Weights are random, with 10 classes; agreement of trained int8 models on images is what `validate` measures. Errors are
norms of the difference over all logits, relative to the norm of the other side. Speed is of one thread, the median over
single images; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from converted import program_of  # noqa: E402

from pipeline.files import sha256_of  # noqa: E402
from pipeline.models.build import build  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.rewrites.deploy import in_form  # noqa: E402
from targets.coreml.units import SIMULATED  # noqa: E402
from targets.types import Precision, TargetError  # noqa: E402
from targets.worker.host import HostWorker  # noqa: E402

ZOO = ("t2t_vit_12", "mobilenet_v2", "t2t_vit_7", "t2t_vit_10")
FAMILIES = (
    "resnet18", "efficientnet_lite0", "mobilenetv3_small_100", "mobilevit_xxs", "mobilevitv2_050",
    "deit_tiny_patch16_224", "levit_128s", "convnext_atto", "regnety_002", "ghostnet_100", "fastvit_t8",
    "edgenext_xx_small",
)  # fmt: skip
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
IMAGES, CLASSES, SIDE = 4, 10, 224


@dataclass(frozen=True)
class Line:
    """One package: the error of each rounding model against the torch program, and images a second."""

    model: str
    precision: str
    error: dict[str, float]
    images_per_s: dict[str, float]
    against: dict[str, float]  # fp32 files of the same model in other runtimes


def measure(name: str, precision: Precision, folder: Path, others: Sequence[str]) -> Line:
    torch.manual_seed(0)
    model, config = build(name, CLASSES, SIDE)
    images = torch.randn(IMAGES, *config.input_size)
    program, logits = program_of(in_form(model.eval(), "deploy"), precision, images, folder / f"{name}.{precision}.pt2")
    package = folder / f"{name}.{precision}.mlpackage"
    with HostWorker() as worker:
        worker.convert("coreml", program, sha256_of(program), precision, package)
    error, speed = {}, {}
    against: dict[str, float] = {}
    for runtime in SIMULATED[:1] if precision == "fp32" else SIMULATED:
        with HostWorker() as worker:
            session = worker.open("coreml", package, runtime, threads=1)
            seen = session.infer(images.numpy())  # the first image folds the constants
            seconds = []
            for image in images.numpy():
                start = time.perf_counter()
                session.infer(image[None])
                seconds.append(time.perf_counter() - start)
        error[runtime], speed[runtime] = _distance(seen, logits), 1 / statistics.median(seconds)
        if runtime == SIMULATED[0]:
            against = {other: _distance(seen, _run(other, program, precision, images.numpy())) for other in others}
    return Line(name, precision, error, speed, against)


def _run(target: str, program: Path, precision: Precision, images: np.ndarray) -> np.ndarray:
    """Logits of the same program's file in another runtime."""
    path = program.with_suffix(f".{target}")
    with HostWorker() as worker:
        worker.convert(target, program, sha256_of(program), precision, path)
    with HostWorker() as worker:
        return worker.open(target, path, {"tflite": "litert"}.get(target, target), threads=1).infer(images)


def _distance(seen: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(seen - other) / np.linalg.norm(other))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", action="store_true", help="only the four models of the zoo")
    parser.add_argument("--models", nargs="*", help="these instead")
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=PRECISIONS)
    options = parser.parse_args()
    models = options.models or (ZOO if options.zoo else (*ZOO, *FAMILIES))
    print("| model | file | error to the torch program | to ExecuTorch, LiteRT | images a second, one thread |")
    print("|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("measuring", len(models) * len(options.precisions), "files") as bar,
    ):
        for name in models:
            for precision in options.precisions:
                others = ("executorch", "tflite") if precision == "fp32" and name in ZOO else ()
                try:
                    line = measure(name, precision, Path(folder), others)
                except TargetError as error:
                    print(f"| {name} | {precision} | {error} | | |", flush=True)
                else:
                    print(_row(line), flush=True)
                bar.advance(1)


def _row(line: Line) -> str:
    errors = ", ".join(f"{value:.1e}" for value in line.error.values())
    against = ", ".join(f"{value:.1e}" for value in line.against.values()) or "–"
    speeds = ", ".join(f"{value:.1f}" for value in line.images_per_s.values())
    return f"| {line.model} | {line.precision} | {errors} | {against} | {speeds} |"


if __name__ == "__main__":
    main()
