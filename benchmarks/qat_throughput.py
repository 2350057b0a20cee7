"""Images per second of float fine-tuning and of QAT, taking turns in one process; JSON and a table out.

    python benchmarks/qat_throughput.py [--models t2t_vit_7 mobilenet_v2] [--device auto] [--batch-size 16] [--rounds 7]

A turn is one optimizer step of the real trainee on random images, with forward, loss, backward, clipping and AdamW. The
ratio is that of two neighbouring turns, QAT over float; its interval is over the rounds. Float fine-tuning trains the
official form, as `quantize` does; the deploy form in float is there to tell the forms and the quantization apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from pipeline.config import RunConfig  # noqa: E402
from pipeline.files import write_json  # noqa: E402
from pipeline.metrics.latency import ratio_of, round_ratios, summarize  # noqa: E402
from pipeline.models.build import build  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.quantization.calibration import calibrate  # noqa: E402
from pipeline.quantization.graph import prepare  # noqa: E402
from pipeline.quantization.quantizer import Scheme  # noqa: E402
from pipeline.quantization.ranges import learn_ranges  # noqa: E402
from pipeline.quantization.trainee import QatTrainee, teacher_of  # noqa: E402
from pipeline.rewrites.deploy import in_form  # noqa: E402
from pipeline.run import provenance  # noqa: E402
from pipeline.training.plan import qat_plan  # noqa: E402
from pipeline.training.subject import choose_device, seed_everything  # noqa: E402
from pipeline.training.trainees import FloatTrainee  # noqa: E402

CONTROL = "float"
CLASSES, WARMUP = 1000, 2
#: Lowest throughput of QAT as a fraction of float, by kind of device: our bar.
BARS = {"cpu": 0.5, "cuda": 0.6}
PLAN = qat_plan(RunConfig("", dropout=True, distill=0.0, ranges="observed"))  # the plain one


def variants(model: str, side: int | None, batch_size: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """One optimizer step of each, by name."""
    torch.manual_seed(0)
    module, config = build(model, CLASSES, side, None)
    images = torch.randn(batch_size, *config.input_size, device=device)
    labels = torch.randint(CLASSES, (batch_size,), device=device)
    form = in_form(module, "deploy")

    def prepared() -> Any:
        graph = prepare(form, config.input_size, Scheme()).to(device)
        calibrate(graph, [images], batch_size, device)
        return graph

    learned = prepared()
    learn_ranges(learned)
    trainees = {CONTROL: (FloatTrainee(module.to(device), PLAN), 0.0)}
    if form is not module:
        trainees["float, deploy form"] = FloatTrainee(form.to(device), PLAN), 0.0
    trainees["QAT, observers move"] = QatTrainee(prepared(), PLAN), 0.0
    taught, distilled = prepared(), replace(PLAN, distill=1.0)
    trainees["QAT, distilled"] = QatTrainee(taught, distilled, teacher_of(taught, distilled)), 0.0
    trainees["QAT, all frozen"] = QatTrainee(prepared(), PLAN), 0.99
    trainees["QAT, learned ranges"] = QatTrainee(learned, PLAN), 0.0
    return {name: _step(trainee, done, images, labels) for name, (trainee, done) in trainees.items()}


def _step(trainee: Any, done: float, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(trainee.parameter_groups(), lr=1e-6)

    def step() -> None:
        shown = trainee.begin_step(0, done, images)
        optimizer.zero_grad(set_to_none=True)
        loss = trainee.loss(shown, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(trainee.module.parameters(), PLAN.clip_norm)
        optimizer.step()
        loss.item()  # the loop looks at every loss; on a GPU this waits for the step

    return step


def measure(model: str, side: int | None, batch_size: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """One row for each variant, with all its times."""
    steps = variants(model, side, batch_size, device)
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    with progress(f"timing {model}", (WARMUP + rounds) * len(steps), "steps") as bar:
        for number in range(WARMUP + rounds):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                if number >= WARMUP:
                    times[name].append([1000 * (time.perf_counter() - began)])
                bar.advance(1)
    rows = []
    for name, steps_ms in times.items():
        # Time of float over time of this: throughput of this over float.
        compared = ratio_of(round_ratios(times[CONTROL], steps_ms))
        median = summarize([ms for turn in steps_ms for ms in turn]).median_ms
        rows.append(
            {
                "model": model,
                "variant": name,
                "steps_ms": [ms for turn in steps_ms for ms in turn],
                "images_per_second": 1000 * batch_size / median,
                "of_float": compared.ratio,
                "low": compared.low,
                "high": compared.high,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["t2t_vit_7", "mobilenet_v2"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--img-size", type=int, default=None, help="default: the model's own")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "qat_throughput.local.json")
    arguments = parser.parse_args()
    threads = seed_everything(0, arguments.threads)
    device = choose_device(arguments.device)
    rows = []
    for model in arguments.models:
        rows += measure(model, arguments.img_size, arguments.batch_size, arguments.rounds, device)
    bar = BARS.get(device.type)
    facts = {
        "provenance": provenance.collect(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": threads,
        "batch_size": arguments.batch_size,
        "img_size": arguments.img_size,
        "bar": bar,
        "rows": rows,
    }
    write_json(arguments.out, facts)
    for row in rows:
        interval = f"{row['low']:.2f} to {row['high']:.2f}" if row["low"] is not None else "interval not measured"
        print(
            f"{row['model']:14s} {row['variant']:22s} {row['images_per_second']:8.1f} images/s, "
            f"{row['of_float']:.2f} of float ({interval})"
        )
    print(f"bar: {bar if bar is not None else 'none'} of float on {facts['device']}, {threads} threads")


if __name__ == "__main__":
    main()
