"""Nothing in; the bundled demo weights, trained anew from random weights on the embedded digits, out.

    python benchmarks/train_demo_weights.py [--out pipeline/models/demo] [MODEL ...]

The figures of the committed files are in docs/demo-weights.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.models.zoo import DEMO_FOLDER, ZOO  # noqa: E402
from pipeline.qat.float_training import FloatTraining, train_float  # noqa: E402
from pipeline.qat.plan import TrainPlan  # noqa: E402
from pipeline.quiet import quiet_sdks  # noqa: E402

PEAK_LR = {"t2t_vit_7": 5e-4, "t2t_vit_10": 5e-4, "t2t_vit_12": 5e-4, "mobilenet_v2": 2e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ZOO), choices=list(ZOO), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER)
    arguments = parser.parse_args()
    quiet_sdks()
    for name in arguments.models:
        # Ten epochs on images of half the height and width cost a quarter each; two at full size set it right.
        plan = TrainPlan(epochs=12, half_size_epochs=10, lr=PEAK_LR[name], hflip=False, scale_min=0.8)
        training = FloatTraining(
            name, data="digits", weights="none", out=arguments.out / f"{name}.safetensors", half=True
        )
        right, n = train_float(training, plan, resume=False, say=lambda line: print(line, flush=True))
        print(f"{name}: top-1 {100 * right / n:.2f} % ({right} of {n})")


if __name__ == "__main__":
    main()
