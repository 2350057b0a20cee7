"""A model, data and recipes in; what each part of the recipe does to the int8 answers, as a Markdown table, out.

    python benchmarks/qat_recipe.py [MODEL ...] [--data digits] [--weights FILE] [--steps 20] [--batch-size 16]
                                    [--arms qat,distill] [--out FILE.json]

Every arm is one `quantize` of the same weights with one thing changed, from calibration alone (ptq) or from QAT (qat),
scored on the whole validation split. Top-1 of a few hundred images is coarse, so the table also has the drop of the
mean log-likelihood of the right class and the KL divergence to the float model's answers. Arms that FILE.json has
already are not run again. Two to three minutes an arm and model on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.config import RunConfig  # noqa: E402
from pipeline.files import write_json  # noqa: E402
from pipeline.metrics.drift import drift, kl_divergence  # noqa: E402
from pipeline.metrics.paired import PairedDrop, paired_drop_of_logits  # noqa: E402
from pipeline.run.logits import load_logits  # noqa: E402
from pipeline.stages.quantize import default_weights, new_run  # noqa: E402
from targets.sdk import quiet_sdks  # noqa: E402

UNCORRECTED: dict[str, Any] = {"bias_correction": False, "adaptive_rounding": False, "equalize": False}
PTQ: dict[str, Any] = {"epochs": 0, **UNCORRECTED}
#: QAT without anything of the recipe; the arms below differ from it, or from PTQ, in what they name.
QAT: dict[str, Any] = {
    **UNCORRECTED, "distill": 0.0, "distill_features": 0.0, "ema": 0.0, "ranges": "observed",
    "dropout": True, "observer": "moving-average",
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "ptq": PTQ,
    "ptq, histogram": {**PTQ, "observer": "histogram"},
    "ptq, mse": {**PTQ, "observer": "mse"},
    "ptq, equalize": {**PTQ, "equalize": True},
    "ptq, bias correction": {**PTQ, "bias_correction": True},
    "ptq, mse, equalize, bias correction": {**PTQ, "observer": "mse", "equalize": True, "bias_correction": True},
    "qat": QAT,
    "qat, distill 0.5": {**QAT, "distill": 0.5},
    "qat, distill 1": {**QAT, "distill": 1.0},
    "qat, distill 1, features 1": {**QAT, "distill": 1.0, "distill_features": 1.0},
    "qat, distill 1, no dropout": {**QAT, "distill": 1.0, "dropout": False},
    "qat, distill 1, EMA 0.9": {**QAT, "distill": 1.0, "ema": 0.9},
    "qat, distill 1, learned ranges": {**QAT, "distill": 1.0, "ranges": "learned"},
    "qat, distill 1, re-estimated ranges": {**QAT, "distill": 1.0, "ranges": "re-estimated"},
    "qat, distill 1, mse": {**QAT, "distill": 1.0, "observer": "mse"},
    "qat, distill 1, freeze at 0.2": {**QAT, "distill": 1.0, "observer_freeze": 0.2},
    "qat, distill 1, freeze at 1": {**QAT, "distill": 1.0, "observer_freeze": 1.0},
    "qat, distill 1, equalize": {**QAT, "distill": 1.0, "equalize": True},
    "qat, distill 1, bias correction": {**QAT, "distill": 1.0, "bias_correction": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["t2t_vit_7", "mobilenet_v2"], metavar="MODEL")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--weights", default="", help="default: the bundled ones")
    parser.add_argument("--steps", type=int, default=20, help="of QAT")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=RunConfig.lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--img-size", type=int, default=None)
    parser.add_argument("--arms", default="", help="some of them, with / between; default: all")
    parser.add_argument("--out", type=Path, default=None, help="JSON, read first and added to")
    arguments = parser.parse_args()
    quiet_sdks()
    known = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    arms = arguments.arms.split("/") if arguments.arms else list(ARMS)
    for model in arguments.models:
        base = RunConfig(
            model=model,
            data=arguments.data,
            weights=arguments.weights or default_weights(model, arguments.data),
            batch_size=arguments.batch_size,
            max_steps=arguments.steps,
            lr=arguments.lr,
            seed=arguments.seed,
            img_size=arguments.img_size,
        )
        for arm in arms:
            key = f"{model} | {arm} | {arguments.data} {arguments.steps}x{arguments.batch_size} seed {arguments.seed}"
            if key not in known:
                known[key] = measured(replace(base, **ARMS[arm]))
                if arguments.out:
                    write_json(arguments.out, known)
            print(row(model, arm, known[key]), flush=True)


def measured(config: RunConfig) -> dict[str, Any]:
    """What `quantize` with `config` does to the answers on the validation split."""
    with tempfile.TemporaryDirectory() as folder:
        logits = load_logits(new_run(config, Path(folder), say=lambda line: None))
    before, after = logits.stages["float"], logits.stages["qdq"]
    return {
        "config": config.to_dict(),
        "drop": asdict(paired_drop_of_logits(before, after, logits.labels)),
        "float_right": int((before.argmax(1) == logits.labels).sum()),
        "agreement_percent": drift(before, after).agreement_percent,
        "kl": float(kl_divergence(before, after).mean()),
        "likelihood_drop": likelihood(before, logits.labels) - likelihood(after, logits.labels),
    }


def likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean log-likelihood of the right class, in nats."""
    from scipy.special import log_softmax

    return float(log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def row(model: str, arm: str, facts: dict[str, Any]) -> str:
    paired = PairedDrop(**facts["drop"])
    low, high = paired.interval_pp()
    cells = (
        model,
        arm,
        f"{paired.drop_pp:+.2f} ({low:+.2f} to {high:+.2f}), -{paired.lost} +{paired.gained} of {paired.n}",
        f"{facts['agreement_percent']:.2f}",
        f"{1e3 * facts['likelihood_drop']:+.1f}",
        f"{1e3 * facts['kl']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
