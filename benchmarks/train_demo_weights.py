"""Nothing in; the bundled demo weights, trained anew by the `train` command on the embedded digits, out.

    python benchmarks/train_demo_weights.py [--out pipeline/models/demo] [MODEL ...]

The figures of the committed files, and these commands, are in docs/demo-weights.md.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.models.zoo import DEMO_FOLDER, ZOO  # noqa: E402

#: Ten epochs on images of half the height and width cost a quarter each; two at full size set it right.
COMMON = ("--half-size-epochs", "10", "--half")
OWN = {"mobilenet_v2": ("--lr", "2e-3")}


def arguments(model: str, out: Path) -> list[str]:
    """What stands after `python main.py` to train one model."""
    return ["train", model, *OWN.get(model, ()), *COMMON, "--out", str(out / f"{model}.safetensors")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ZOO), choices=list(ZOO), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER)
    options = parser.parse_args()
    for model in options.models:
        command = arguments(model, options.out)
        print(f"python main.py {shlex.join(command)}", flush=True)
        subprocess.run([sys.executable, str(ROOT / "main.py"), *command], check=True)


if __name__ == "__main__":
    main()
