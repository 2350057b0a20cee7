"""Does QAT of a T2T-ViT ever give NaN: many seeds of the real calibration and training loop in, a verdict for each out.

    python benchmarks/qat_stability.py [--seeds 50] [--steps 20] [--weights none] [--img-size 224]

Each seed is a run of its own: weights (`none`: random by the seed; `demo`: the bundled ones), calibration subset, order
of the digits, augmentation and dropout. A seed fails if `fit` stops on a loss or gradient that is not finite, or if a
parameter, a range or a logit of the trained graph or of its QDQ program is not finite. Ends with 1 if one has failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from calibration.dataset import DIGITS  # noqa: E402
from calibration.loader import eval_batches  # noqa: E402
from calibration.sampler import calibration_subset  # noqa: E402
from pipeline.config import RunConfig  # noqa: E402
from pipeline.errors import TrainingError  # noqa: E402
from pipeline.files import write_json  # noqa: E402
from pipeline.quantization.calibration import calibrate  # noqa: E402
from pipeline.quantization.graph import prepare, to_qdq_program  # noqa: E402
from pipeline.quantization.quantizer import Scheme  # noqa: E402
from pipeline.quantization.ranges import learn_ranges, ranges  # noqa: E402
from pipeline.quantization.trainee import QatTrainee  # noqa: E402
from pipeline.rewrites.deploy import in_form  # noqa: E402
from pipeline.run import provenance  # noqa: E402
from pipeline.training.loop import EpochRecord, Phase, fit  # noqa: E402
from pipeline.training.plan import qat_plan  # noqa: E402
from pipeline.training.setting import training_batches  # noqa: E402
from pipeline.training.subject import Subject, choose_device, load_data, load_subject, seed_everything  # noqa: E402

CALIBRATION_IMAGES, SCORED_IMAGES = 32, 16


def train_one(subject: Subject, seed: int, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The record of one seed; `failure` is None if all is finite."""
    train = subject.data.train
    plan = qat_plan(
        RunConfig(
            "",
            batch_size=arguments.batch_size,
            lr=arguments.lr,
            seed=seed,
            max_steps=arguments.steps,
            dropout=True,
            distill=0.0,
            ranges="observed",
        )
    )
    graph = prepare(in_form(subject.model, arguments.form), subject.input_size, Scheme()).to(device)
    indices = calibration_subset(train.labels, CALIBRATION_IMAGES, seed)
    calibrate(graph, (b for b, _, _ in eval_batches(train, subject.transform, 16, indices)), len(indices), device)
    if arguments.ranges == "learned":
        learn_ranges(graph)

    def batches(epoch: int, first_step: int) -> Iterator[Any]:
        return training_batches(subject, plan, epoch, first_step, 0)

    history: list[EpochRecord] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edge-t2t-stability-") as folder:
        phase = Phase(
            name="qat",
            folder=Path(folder),
            images=len(train),
            batches=batches,
            evaluate=lambda: (0, SCORED_IMAGES),  # what counts here are the logits below
            on_epoch=lambda records: history.extend(records[-1:]),
            device=device,
        )
        try:
            trainee = QatTrainee(graph, plan)
            fit(trainee, plan, phase)
            trainee.begin_evaluation()
            failure = not_finite(graph, subject, device)
        except TrainingError as error:
            failure = str(error)
    loss = history[-1].loss if history else None
    return {"seed": seed, "failure": failure, "loss": loss, "seconds": time.perf_counter() - began}


def not_finite(graph: Any, subject: Subject, device: torch.device) -> str | None:
    """The first thing of a trained graph, or of its program, that is not finite."""
    images, _, _ = next(eval_batches(subject.data.val, subject.transform, SCORED_IMAGES, range(SCORED_IMAGES)))
    program = to_qdq_program(graph, subject.input_size).module()
    with torch.no_grad():
        found: dict[str, Tensor] = {f"parameter {name}": p.detach() for name, p in graph.named_parameters()}
        found |= {f"range {name}": scale for name, (scale, _) in ranges(graph).items()}
        found |= {"logits": graph(images.to(device)), "logits of the QDQ program": program(images)}
    return next((name for name, value in found.items() if not bool(value.isfinite().all())), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="t2t_vit_7")
    parser.add_argument("--weights", default="none", help="none (random), demo or a file")
    parser.add_argument("--form", default="deploy")
    parser.add_argument("--ranges", default="observed", choices=["observed", "learned"])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--img-size", type=int, default=None, help="default: the model's own")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "qat_stability.local.json")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: nothing would be tried, give at least 1")
    device, data = choose_device(arguments.device), load_data(DIGITS, skip_bad=False)
    options = {k: v for k, v in vars(arguments).items() if k != "out"}
    records: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        seed_everything(seed, arguments.threads)
        subject = load_subject(arguments.model, data, arguments.weights, seed, arguments.img_size)
        records.append(train_one(subject, seed, arguments, device))
        # After every seed: what was tried is kept whatever happens to the rest.
        write_json(arguments.out, {"provenance": provenance.collect(), "options": options, "seeds": records})
        last = records[-1]
        loss = "none" if last["loss"] is None else f"{last['loss']:.4f}"
        print(f"seed {seed}: loss {loss}, {last['failure'] or 'all finite'} ({last['seconds']:.0f} s)", flush=True)
    failed = [record["seed"] for record in records if record["failure"]]
    print(
        f"{len(records) - len(failed)} of {len(records)} seeds stayed finite"
        + (f"; failed: {failed}" if failed else "")
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
