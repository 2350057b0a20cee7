"""Int8 TFLite files in; what LiteRT's Arm kernels answer under emulation, beside this host's, image by image, out.

    python benchmarks/arm64_numerics.py [RUN ...] [--images N] [--runs-dir DIR]

RUN is a run folder with a TFLite int8 file; without one the bundled weights of every model are calibrated on the digits
and converted, once for each --runs-dir. Images are of the run's own validation split, evenly spread. The table goes to
stdout as Markdown; the exit status is 1 if any image has another top-1 than on the host. Seconds are of the emulation,
and no latency of anything. `python main.py devices --setup-arm64` prepares what it needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from accuracy_results import finished_run  # noqa: E402

from pipeline.commands.options import say  # noqa: E402
from pipeline.config import RunConfig  # noqa: E402
from pipeline.metrics.drift import drift  # noqa: E402
from pipeline.models.zoo import ZOO  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.run.cells import artifact_path, boundary_of, load_conversions  # noqa: E402
from pipeline.run.folder import Run  # noqa: E402
from pipeline.run.layout import artifact_name  # noqa: E402
from pipeline.run.logits import load_logits_subset  # noqa: E402
from pipeline.stages.convert import as_made, convert_cells, plan_cells  # noqa: E402
from pipeline.stages.validate import CHUNK  # noqa: E402
from pipeline.training.subject import scored_images  # noqa: E402
from targets.devices.address import Address  # noqa: E402
from targets.devices.device import (  # noqa: E402
    CountsInstructions,
    Device,
    DeviceOptions,
    device_at,
)
from targets.sdk import quiet_sdks  # noqa: E402

HEAD = """| model | same top-1 | largest difference of logits | SQNR, dB | s an image | start, s | instructions |
|---|---|---|---|---|---|---|"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/arm64"))
    arguments = parser.parse_args()
    quiet_sdks()
    host = device_at(Address("host"), DeviceOptions(), say)
    arm = device_at(Address("qemu-arm64"), DeviceOptions(timeout_s=600), say)
    print(
        f"{arm.facts().system}, {', '.join(f'{k} {v}' for k, v in arm.facts().versions.items())}\n\n{HEAD}", flush=True
    )
    other = 0
    for run in [Run(path) for path in arguments.runs] or [calibrated(model, arguments.runs_dir) for model in ZOO]:
        line, differing = compare(run, host, arm, arguments.images)
        print(line, flush=True)
        other += differing
    return min(other, 1)


def calibrated(model: str, root: Path) -> Run:
    """The run of the bundled weights' int8 file, made if it is not there."""
    run = finished_run(RunConfig(model=model, data="digits", weights="demo", epochs=0), root)
    cells = as_made(run, plan_cells(["tflite"], ["int8"], from_float=False, say=say))
    convert_cells(run, [c for c in cells if not run.has(artifact_name(c))], say)
    return run


def compare(run: Run, host: Device, arm: Device, n: int) -> tuple[str, int]:
    """A line of the table, and the images whose top-1 is another one."""
    record = next(r for r in load_conversions(run) if (r.target, r.precision) == ("tflite", "int8"))
    path = artifact_path(run, record)
    boundary = boundary_of(run, record)
    images = boundary.feed(np.concatenate(list(scored_images(run, load_logits_subset(run, n)).pixels(CHUNK))))
    here, _, _ = logits(host, path, images, f"{run.model} on this host")
    there, start_s, seconds = logits(arm, path, images, f"{run.model} under emulation")
    found = drift(boundary.scores(here), boundary.scores(there))
    sqnr = "equal to the bit" if found.exact else f"{found.sqnr_db:.1f}"
    assert isinstance(arm, CountsInstructions)
    count = arm.count_instructions("tflite", path, "litert", images[:1])
    line = f"| {run.model} | {found.agreement_same} of {found.n} | {found.max_abs:.4f} | {sqnr} "
    line += f"| {seconds / len(images):.2f} | {start_s:.1f} | {count.per_inference / 1e6:.2f} M "
    return line + f"(spread {count.spread}, n {count.repeats}) |", found.n - found.agreement_same


def logits(device: Device, path: Path, images: np.ndarray, what: str) -> tuple[np.ndarray, float, float]:
    """Of a fresh worker; and the seconds until the file was open, and of all images."""
    rows, began = [], time.perf_counter()
    with device.worker() as worker, progress(what, len(images), "images") as bar:
        session = worker.open("tflite", path, "litert", 1)
        opened = time.perf_counter()
        for start in range(0, len(images), CHUNK):
            rows.append(session.infer(images[start : start + CHUNK]))
            bar.advance(len(rows[-1]))
        return np.concatenate(rows), opened - began, time.perf_counter() - opened


if __name__ == "__main__":
    sys.exit(main())
