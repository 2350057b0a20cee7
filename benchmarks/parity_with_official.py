"""A clone of yitu-opensource/T2T-ViT in; our models' distance to the authors' code at equal weights out.

    git clone https://github.com/yitu-opensource/T2T-ViT
    python benchmarks/parity_with_official.py T2T-ViT [--write-golden tests/unit/golden/t2t_vit.json]

The authors' package needs modules of an old timm: the three names that it imports are given to it from today's.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from alive import alive_images, make_alive, smallest_divisor  # noqa: E402

from calibration.torchvision_compat import ensure_torchvision  # noqa: E402
from pipeline.models.t2t_vit import PUBLISHED_QK_SCALE, T2TViT  # noqa: E402

IMAGES, CLASSES, SEED = 8, 10, 3


def official(clone: Path) -> types.ModuleType:
    """The authors' models/t2t_vit.py."""
    ensure_torchvision()
    import timm.layers

    helpers, registry, layers = (types.ModuleType(f"timm.models.{n}") for n in ("helpers", "registry", "layers"))
    helpers.load_pretrained = None  # type: ignore[attr-defined]
    registry.register_model = lambda function: function  # type: ignore[attr-defined]
    layers.trunc_normal_, layers.DropPath = timm.layers.trunc_normal_, timm.layers.DropPath  # type: ignore[attr-defined]
    package = types.ModuleType("models")  # without its __init__, which imports models that we do not compare
    package.__path__ = [str(clone / "models")]
    for module in (helpers, registry, layers, package):
        sys.modules[module.__name__] = module
    import models.t2t_vit

    return models.t2t_vit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--write-golden", type=Path)
    arguments = parser.parse_args()
    authors, images = official(arguments.clone), alive_images(IMAGES, seed=SEED)
    golden: dict[str, object] = {"images": IMAGES, "classes": CLASSES, "image_seed": SEED, "models": {}}
    print("| model | qk_scale | max abs difference | of float64 | largest logit | smallest divisor |")
    print("|---|---|---|---|---|---|")
    for depth in (7, 10, 12):
        for scale in (None, PUBLISHED_QK_SCALE):
            theirs = make_alive(getattr(authors, f"t2t_vit_{depth}")(num_classes=CLASSES, qk_scale=scale), seed=depth)
            ours = T2TViT(depth, CLASSES, qk_scale=scale).eval()
            ours.load_state_dict(theirs.state_dict())
            with torch.no_grad():
                expected, seen = theirs(images), ours(images)
                exact = ours.double()(images.double())
            difference = (expected - seen).abs().max().item()
            print(
                f"| t2t_vit_{depth} | {scale or 'head_dim ** -0.5'} | {difference:.1e} "
                f"| {(expected - exact).abs().max().item():.1e} | {expected.abs().max().item():.2f} "
                f"| {smallest_divisor(theirs, images[:4]):.2g} |"
            )
            key = f"t2t_vit_{depth}{'' if scale is None else '_published_scale'}"
            golden["models"][key] = [[round(v, 7) for v in row] for row in expected.tolist()]  # type: ignore[index]
    if arguments.write_golden:
        arguments.write_golden.parent.mkdir(parents=True, exist_ok=True)
        arguments.write_golden.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
