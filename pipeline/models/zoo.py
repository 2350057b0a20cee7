"""The models this project knows by name; every other name is looked up in timm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError
from targets.words import suggest

#: What `--weights` takes besides the path of a file, and before the name of a repository.
WEIGHTS_SOURCES = ("demo", "pretrained", "none")
HUB_PREFIX = "hf-hub:"
TIMM_PREFIX = "timm/"

DEMO_FOLDER = Path(__file__).resolve().parent / "demo"

_RELEASE = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main"
_T2T_SOURCE = "README of yitu-opensource/T2T-ViT, commit 0f63dc9"


@dataclass(frozen=True)
class ZooEntry:
    """One named model.

    Attributes:
        family: `t2t` is this project's own code, `timm` is built by timm.
        params_millions: with the 1000-class head, counted on the built model.
        macs_giga: multiply-accumulates of one 224 px image, as published.
        top1_percent: published ImageNet-1k validation accuracy of the `pretrained` weights.
        depth: transformer blocks of a T2T-ViT; None for timm.
        timm_name: name for timm.create_model, with the tag of its weights; None for T2T-ViT.
        pretrained_url: release file of a T2T-ViT; None where timm's own configuration names the file.
    """

    name: str
    family: Literal["t2t", "timm"]
    params_millions: float
    macs_giga: float
    macs_source: str
    top1_percent: float
    top1_source: str
    depth: int | None = None
    timm_name: str | None = None
    pretrained_url: str | None = None

    @property
    def pretrained_source(self) -> str:
        """Where `--weights pretrained` comes from, for a person to read."""
        return self.pretrained_url or f"timm hub: {self.timm_name}"

    @property
    def demo_file(self) -> Path:
        """The bundled weights (10 digit classes); whether the file is there is the loader's business."""
        return DEMO_FOLDER / f"{self.name}.safetensors"


def _t2t(depth: int, params_millions: float, macs_giga: float, top1_percent: float) -> ZooEntry:
    return ZooEntry(
        name=f"t2t_vit_{depth}",
        family="t2t",
        params_millions=params_millions,
        macs_giga=macs_giga,
        macs_source=_T2T_SOURCE,
        top1_percent=top1_percent,
        top1_source=_T2T_SOURCE,
        depth=depth,
        pretrained_url=f"{_RELEASE}/{top1_percent}_T2T_ViT_{depth}.pth.tar",
    )


ZOO: dict[str, ZooEntry] = {
    "t2t_vit_7": _t2t(7, params_millions=4.31, macs_giga=1.1, top1_percent=71.7),
    "t2t_vit_10": _t2t(10, params_millions=5.89, macs_giga=1.5, top1_percent=75.2),
    "t2t_vit_12": _t2t(12, params_millions=6.94, macs_giga=1.8, top1_percent=76.5),
    "mobilenet_v2": ZooEntry(
        name="mobilenet_v2",
        family="timm",
        params_millions=3.50,
        macs_giga=0.3,
        macs_source="Sandler et al. 2018, table 4 (300 M)",
        top1_percent=72.976,
        top1_source="results/results-imagenet.csv of huggingface/pytorch-image-models, row mobilenetv2_100.ra_in1k",
        timm_name="mobilenetv2_100.ra_in1k",
    ),
}


def is_t2t(name: str) -> bool:
    """Whether `name` is one of our own T2T-ViT models (the only ones with a qk_scale)."""
    return name in ZOO and ZOO[name].family == "t2t"


def plain_name(name: str) -> str:
    """A model as this program calls it: `timm/NAME` and `hf-hub:timm/NAME` are timm's NAME.

    Raises:
        UsageError: a model of another repository, whose architecture is not in its name.
    """
    repository = name.removeprefix(HUB_PREFIX)
    if repository != name and not repository.startswith(TIMM_PREFIX):
        raise UsageError(f"{name} is a repository of weights: name its architecture, and give --weights {name}")
    return repository.removeprefix(TIMM_PREFIX)


def timm_name(name: str) -> str:
    """What timm calls a model that is not a T2T-ViT.

    Raises:
        UsageError: neither the zoo nor timm knows the name (or timm has no weights under its tag); the message
            gives the nearest names.
    """
    entry = ZOO.get(name)
    if entry is not None and entry.timm_name is not None:
        return entry.timm_name
    from calibration.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import timm

    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture) and (not tag or name in timm.list_models(f"{architecture}.*", pretrained=True)):
        return name
    known = [*ZOO, *timm.list_models(), *timm.list_models(pretrained=True)]
    raise UsageError(
        f"model {name!r} is neither in the zoo ({', '.join(ZOO)}) nor known to timm.{suggest(name, known)} "
        "`python main.py models` lists the zoo."
    )


def published_config(name: str) -> Any:
    """timm's PretrainedCfg of a model that is not a T2T-ViT: classifier, classes and file of its weights; or None.

    Raises:
        UsageError: see timm_name.
    """
    full_name = timm_name(name)
    from calibration.torchvision_compat import ensure_torchvision

    ensure_torchvision()  # `import timm` imports torchvision, and this can be the first one of the process
    import timm

    return timm.get_pretrained_cfg(full_name)


def check_name(name: str) -> None:
    """Return if `name` can be built; else raise as `timm_name` does. Zoo names cost no import of torch."""
    if name not in ZOO:
        timm_name(name)
