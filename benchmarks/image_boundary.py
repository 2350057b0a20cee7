"""What it costs that a file takes a picture: one program with an image input and with a tensor input, side by side.

    python benchmarks/image_boundary.py RUN [--targets executorch tflite coreml] [--rounds 30] [--limit N]

For each target both files are made from the run's QDQ program. In every runtime here one process has both open: they
answer the run's scored images, and then take turns at one image. Ratios hold on a noisy machine. A Core ML package is
simulated where no Core ML is, and has no time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import numpy as np  # noqa: E402

from pipeline.config import Wishes  # noqa: E402
from pipeline.files import sha256_of  # noqa: E402
from pipeline.metrics.latency import ratio_of, round_ratios  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.records.keys import ArtifactKey  # noqa: E402
from pipeline.run import layout  # noqa: E402
from pipeline.run.facts import read_quantization, read_subject  # noqa: E402
from pipeline.run.folder import Run, find_run  # noqa: E402
from pipeline.run.logits import load_logits_subset  # noqa: E402
from pipeline.stages.convert import options_by_target  # noqa: E402
from pipeline.training.subject import scored_images  # noqa: E402
from targets import registry  # noqa: E402
from targets.boundary import Boundary  # noqa: E402
from targets.types import Unavailable  # noqa: E402
from targets.worker.host import HostWorker  # noqa: E402

KINDS = ("image", "tensor")
SAMPLES = 10


def make(run: Run, target: str, folder: Path) -> dict[str, tuple[Path, Boundary]]:
    """Both files, and what each takes."""
    program = run.file(layout.QDQ_PROGRAM)
    cell = ArtifactKey(target, "int8", read_quantization(run).source)
    config = read_subject(run).model_config
    size = config.input_size[1:]
    made = {}
    for kind in KINDS:
        options = options_by_target(run, Wishes(tensor_input=kind == "tensor"), [cell])[cell]
        path = folder / f"{target}-{kind}{registry.get(target).suffix}"
        with HostWorker() as worker:
            worker.convert(target, program, sha256_of(program), "int8", path, {}, options)
        whole = replace(options, mean=config.mean, std=config.std)  # as `convert` does
        made[kind] = path, registry.get(target).boundary(whole, size)
    return made


def measure(
    files: dict[str, tuple[Path, Boundary]], target: str, runtime: str, pixels: np.ndarray, rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, list[list[float]]]]:
    """Scores [N, classes] and rounds of milliseconds of both; no rounds of a simulation.

    Raises:
        Unavailable: no such runtime here.
    """
    times: dict[str, list[list[float]]] = {kind: [] for kind in files}
    with HostWorker() as worker:
        sessions = {kind: worker.open(target, path, runtime, 1) for kind, (path, _) in files.items()}
        scores = {}
        for kind, session in sessions.items():
            chunks = [files[kind][1].feed(pixels[at : at + 16]) for at in range(0, len(pixels), 16)]
            scores[kind] = np.concatenate([files[kind][1].scores(session.infer(chunk)) for chunk in chunks])
        if runtime in registry.get(target).simulated:
            return scores, {}
        fed = {kind: files[kind][1].feed(pixels[:2]) for kind in files}
        with progress(f"timing {target} {runtime}", rounds, "rounds") as bar:
            for number in range(rounds + 1):  # the first warms up
                for kind in files if number % 2 else reversed(files):
                    found = sessions[kind].time(fed[kind], SAMPLES)
                    if number:
                        times[kind].append(found)
                bar.advance(1)
    return scores, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--targets", nargs="+", default=registry.names())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    run = find_run(Path("runs"), given.run)
    reference = load_logits_subset(run, given.limit)
    pixels = np.concatenate(list(scored_images(run, reference).pixels(16)))
    print("| target | runtime | top-1, image | top-1, tensor | same class | image / tensor, time |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for target in given.targets:
            files = make(run, target, Path(folder))
            for runtime in (*registry.get(target).runtimes, *registry.get(target).simulated[:1]):
                try:
                    scores, times = measure(files, target, runtime, pixels, given.rounds)
                except Unavailable:
                    continue
                answers = {kind: values.argmax(1) for kind, values in scores.items()}
                right = [f"{int((answers[kind] == reference.labels).sum())} of {len(pixels)}" for kind in KINDS]
                same = int((answers["image"] == answers["tensor"]).sum())
                took = "not measured"
                if times:
                    ratio = ratio_of(round_ratios(times["image"], times["tensor"]))
                    took = f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
                print(f"| {target} | {runtime} | {' | '.join(right)} | {same} of {len(pixels)} | {took} |", flush=True)


if __name__ == "__main__":
    main()
