"""Models, data and float weights in; what int8 costs them in every runtime, paired image by image, as a table, out.

    python benchmarks/accuracy_results.py [MODEL ...] [--data DIR] [--weights DIR|pretrained] [--steps N]
                                          [--runs-dir DIR]

Each model is quantized by QAT and by calibration alone (PTQ), converted to all targets, and every file scored on the
whole validation split; Core ML packages by the MIL reference in half precision. `--weights` is a folder with one
`MODEL.safetensors` for each, as `train` writes them, or what `quantize --weights` takes (`pretrained`); without it the
bundled ones are taken for the digits, published ones else. What is there already under --runs-dir is not done again.
The table goes to stdout as Markdown; the runs stay, for `report` and `compare`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.commands.options import say  # noqa: E402
from pipeline.config import RunConfig, ValidationPlan  # noqa: E402
from pipeline.files import write_json  # noqa: E402
from pipeline.metrics.accuracy import accuracy  # noqa: E402
from pipeline.metrics.paired import PairedDrop, paired_drop_of_logits  # noqa: E402
from pipeline.models.zoo import ZOO  # noqa: E402
from pipeline.run.folder import Run  # noqa: E402
from pipeline.run.layout import CONFIG, FLOAT_WEIGHTS, artifact_name  # noqa: E402
from pipeline.run.logits import (  # noqa: E402
    load_artifact_logits,
    load_logits,
    rows_of,
)
from pipeline.stages.convert import as_made, convert_cells, plan_cells  # noqa: E402
from pipeline.stages.quantize import default_weights, new_run, resumed_run  # noqa: E402
from pipeline.stages.validate import validate_run  # noqa: E402
from targets.sdk import quiet_sdks  # noqa: E402

HEAD = """| model | int8 by | stage | top-1, % | drop, pp (95 % paired interval) | lost, gained | n |
|---|---|---|---|---|---|---|"""
NAMES = {"float": "float", "fake_quant": "fake quantization", "qdq": "QDQ program"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ZOO), metavar="MODEL")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights", default="")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--epochs", type=int, default=1, help="of QAT")
    parser.add_argument("--steps", type=int, default=None, help="of QAT in an epoch at most")
    parser.add_argument("--targets", default="executorch,coreml,tflite")
    parser.add_argument("--ptq-targets", default="executorch,coreml,tflite", help="of the PTQ programs; may be empty")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    quiet_sdks()
    lines = [HEAD]
    for model in arguments.models:
        weights = arguments.weights or default_weights(model, arguments.data)
        if Path(weights).is_dir():
            weights = str(Path(weights) / f"{model}.safetensors")
        base = {"model": model, "data": arguments.data, "weights": weights, "threads": arguments.threads}
        config = RunConfig(**base, epochs=arguments.epochs, max_steps=arguments.steps)
        for name, targets in (("QAT", arguments.targets), ("PTQ", arguments.ptq_targets)):
            run = finished_run(config, arguments.runs_dir)
            lines += rows(run, name, [target for target in targets.split(",") if target], arguments.threads)
            print("\n".join(lines), flush=True)
            # The same float model: for other classes than those of the weights it was fine-tuned before QAT.
            config = RunConfig(**{**base, "weights": str(run.file(FLOAT_WEIGHTS))}, epochs=0)


def finished_run(config: RunConfig, root: Path) -> Run:
    """The run of this config that an earlier call finished or began, else a new one."""
    index = root / "index.json"
    known = json.loads(index.read_text()) if index.exists() else {}
    key = json.dumps(config.to_dict(), sort_keys=True)
    if key in known:
        run = Run(root / known[key])
        return run if run.status == "finished" else resumed_run(None, run.path, root, say)
    run = new_run(config, root, say)
    assert RunConfig.from_dict(run.read_json(CONFIG)) == config
    write_json(index, {**known, key: run.id})
    return run


class Scored(NamedTuple):
    """A stage or an artifact in a runtime: logits of some images and those of the float model on the same ones."""

    name: str
    logits: np.ndarray | None
    before: np.ndarray
    labels: np.ndarray
    reason: str = ""  # why there are no logits


def scored_stages(run: Run, targets: Sequence[str], threads: int) -> Iterator[Scored]:
    """The torch stages, then every runtime that could be had here."""
    stages = load_logits(run)
    for stage, logits in stages.stages.items():
        yield Scored(NAMES[stage], logits, stages.stages["float"], stages.labels)
    if not targets:
        return
    cells = as_made(run, plan_cells(targets, ["int8"], from_float=False, say=say))
    convert_cells(run, [c for c in cells if not run.has(artifact_name(c))], say)
    for record in validate_run(run, targets, ValidationPlan(threads=threads, roundings=("fp16",)), say):
        kept = load_artifact_logits(run, record.key)
        among = slice(None) if kept is None else rows_of(kept.indices, stages.indices)
        before, labels = stages.stages["float"][among], stages.labels[among]
        logits = None if kept is None else kept.logits
        yield Scored(record.key.label, logits, before, labels, record.outcome.reason or "")


def rows(run: Run, name: str, targets: Sequence[str], threads: int) -> Iterator[str]:
    """Lines of the table."""
    for stage in scored_stages(run, targets, threads):
        if stage.logits is None:
            yield f"| {run.model} | {name} | {stage.name} | not measured: {stage.reason} | | | |"
        else:
            yield row(run.model, name, stage.name, stage.before, stage.logits, stage.labels)


def drop_text(paired: PairedDrop) -> str:
    """In percentage points, with its interval."""
    low, high = paired.interval_pp()
    return f"{paired.drop_pp:+.2f} ({low:+.2f} to {high:+.2f})"


def row(model: str, name: str, stage: str, before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> str:
    paired, scored = paired_drop_of_logits(before, after, labels), accuracy(after, labels)
    drop = "" if before is after else drop_text(paired)
    changed = "" if before is after else f"-{paired.lost} +{paired.gained}"
    return f"| {model} | {name} | {stage} | {scored.top1_percent:.2f} | {drop} | {changed} | {paired.n} |"


if __name__ == "__main__":
    main()
