"""Loads and saves the float weights of a model, with a record of what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import WeightsError
from pipeline.files import write_atomic
from pipeline.models.build import ModelConfig, build
from pipeline.models.checkpoint import (
    Checkpoint,
    check_readable,
    parse_classes,
    read_checkpoint,
    read_metadata,
    said_in_text,
)
from pipeline.models.download import (
    IMAGENET_CLASSES,
    hub_config,
    hub_file,
    pretrained_checkpoint,
    pretrained_classes,
    pretrained_said,
)
from pipeline.models.fit import fit_state, head_classes
from pipeline.models.preprocessing import Known, Said, complete, said_by, settle
from pipeline.models.zoo import HUB_PREFIX, WEIGHTS_SOURCES, ZOO, check_name, is_t2t, timm_name
from targets.words import suggest

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsInfo:
    """What a source says about itself before a model is built for it.

    Attributes:
        qk_scale: what the T2T-ViT must be built with; None for other models and for `none`.
        num_classes: outputs of the head in the source; None for `none` or where no head is found.
        classes: their names in label order, where the file carries them.
        known: of preprocessing, by field of ModelConfig, from options and source.
        silent: what says nothing of the rest; "" where no file could.
    """

    source: str
    qk_scale: float | None
    num_classes: int | None
    classes: tuple[str, ...] | None
    known: Mapping[str, Known]
    silent: str = ""

    @property
    def img_size(self) -> int | None:
        """Side that a model is to be built for; None: the model's own, or the source has no square."""
        _, height, width = self.known["input_size"].value if "input_size" in self.known else (0, 0, 1)
        return height if height == width else None


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights a model got, for the manifest.

    Attributes:
        sha256: of the file; None for `none`.
        container: the dictionary in the file that was used (`state_dict_ema`, `state_dict`, ... or `plain`).
        qk_scale: the attention scale of the model that was loaded; None if it is no T2T-ViT.
    """

    source: str
    sha256: str | None
    container: str | None
    head_replaced: bool
    position_embedding_resized: bool
    qk_scale: float | None


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, in eval mode, and all that is known about them.

    Attributes:
        origins: where each value of preprocessing came from, by field of the config.
        classes: names in label order that the source gives its outputs.
    """

    model: nn.Module
    config: ModelConfig
    record: LoadedWeights
    origins: Mapping[str, str]
    classes: tuple[str, ...] | None


def peek(source: str | Path, name: str, qk_scale: float | None = None, given: Said | None = None) -> WeightsInfo:
    """Look at a source without building a model; what it has to download is downloaded here.

    Args:
        qk_scale: the user's choice; wins over what the source says.
        given: preprocessing by field of ModelConfig, likewise.

    Raises:
        UsageError: unknown model, or an invalid choice.
        WeightsError: the source cannot be had, is damaged, was written for another model, or two parts of it say
            different things of the preprocessing.
    """
    check_name(name)
    given = given or {}
    if str(source) == "none":
        return WeightsInfo("none", qk_scale, None, None, settle("none", given, {}))
    if str(source) == "pretrained":
        known = settle("pretrained", given, pretrained_said(name))
        return WeightsInfo("pretrained", _scale(name, qk_scale, {}, None), pretrained_classes(name), None, known)
    path = _path(source, name)
    if path.suffix == ".safetensors":
        metadata = read_metadata(path)
        said: Mapping[str, Said] = said_in_text(path, metadata)
    else:
        metadata, said = {}, read_checkpoint(path).said
    _check_model(path, metadata, name)
    classes = _classes(source, path, metadata)
    return WeightsInfo(
        source=str(source),
        qk_scale=_scale(name, qk_scale, metadata, path),
        num_classes=len(classes) if classes else head_classes(name, read_checkpoint(path).tensors),
        classes=classes,
        known=settle(str(path), given, {**said, **_hub_said(source)}),
        silent="" if str(source) == "demo" else Path(source).name,
    )


def load_weights(
    model: nn.Module,
    config: ModelConfig,
    source: str | Path,
    classes: Sequence[str] | None = None,
    other_qk_scale: bool = False,
) -> LoadedWeights:
    """Fill `model`, built by `build` with what `peek` said, in place.

    Args:
        classes: names in label order of what the model is for; a file that names others loses its head.
        other_qk_scale: the user chose another attention scale than the source says.

    Raises:
        WeightsError: see peek, and: tensors that do not fit; a model built with another qk_scale than the source needs.
    """
    if str(source) == "none":
        return LoadedWeights("none", None, None, False, False, config.qk_scale)
    checkpoint = _checkpoint(source, config)
    needed = _scale(config.name, None, checkpoint.metadata, checkpoint.path)
    if needed != config.qk_scale and not other_qk_scale:
        raise WeightsError(
            f"{checkpoint.path} needs qk_scale {needed}, but the model was built with {config.qk_scale}: "
            "build it with the qk_scale of peek()"
        )
    named = _classes(source, checkpoint.path, checkpoint.metadata)
    other_classes = classes is not None and named is not None and tuple(classes) != named
    state, head_replaced, resized = fit_state(model, config.name, checkpoint, other_classes)
    model.load_state_dict(state, strict=True)
    return LoadedWeights(
        source=str(source),
        sha256=checkpoint.sha256,
        container=checkpoint.container,
        head_replaced=head_replaced,
        position_embedding_resized=resized,
        qk_scale=config.qk_scale,
    )


def load_model(
    name: str,
    source: str | Path,
    classes: int | Sequence[str] | None = None,
    img_size: int | None = None,
    qk_scale: float | None = None,
    given: Said | None = None,
) -> LoadedModel:
    """Build a model as its weights need it, and fill it.

    Args:
        classes: how many the model is for, or their names in label order; a file that names others loses its head.
            None takes the source's own, or 1000 for `none`.
        given: of preprocessing; the source and then the model decide on the rest.

    Raises:
        UsageError, WeightsError: see the three functions.
    """
    info = peek(source, name, qk_scale, {"img_size": img_size, **(given or {})})
    names = None if classes is None or isinstance(classes, int) else classes
    count = classes if isinstance(classes, int) else len(classes or ())
    model, built = build(name, count or info.num_classes or IMAGENET_CLASSES, info.img_size, info.qk_scale)
    config, origins = complete(built, info.known, info.silent)
    record = load_weights(model, config, source, names, other_qk_scale=qk_scale is not None)
    return LoadedModel(model, config, record, origins, info.classes)


def save_weights(
    model: nn.Module,
    config: ModelConfig,
    path: Path,
    classes: Sequence[str],
    half: bool = False,
    extra_metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file that says which model, scale, classes and preprocessing it is for; whole or not at all.

    Args:
        classes: names in label order; as many as the head has outputs.
        half: floating point tensors as float16 (read back as float32), but for those that `is_halved` exempts.

    Raises:
        WeightsError: wrong number of names, or a value that is not finite (in float16, if `half`).
    """
    import torch
    from safetensors.torch import save

    if len(classes) != config.num_classes:
        raise WeightsError(f"{path}: {len(classes)} class names for a head with {config.num_classes} outputs")
    tensors = {}
    for key, value in model.state_dict().items():
        tensor = value.detach().cpu().to(torch.float16 if half and is_halved(key, value) else value.dtype)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            largest = float(value.abs().max())
            raise WeightsError(
                f"{path}: {key} is not finite as {tensor.dtype} (largest value {largest:g}): not written"
            )
        tensors[key] = tensor.clone().contiguous()  # safetensors refuses shared or strided storage
    metadata = {
        "format": "pt",
        "model": config.name,
        "num_classes": str(config.num_classes),
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "preprocessing": json.dumps(said_by(config)),
        **({} if config.qk_scale is None else {"qk_scale": repr(config.qk_scale)}),
    }
    write_atomic(path, save(tensors, metadata=metadata | dict(extra_metadata or {})))


def is_halved(key: str, value: Tensor) -> bool:
    """Whether a tensor may be stored as float16.

    Not the Performer's random projection `w`: its rows are orthogonal to float32 precision, which the deploy form needs
    (pipeline.rewrites.rotation), and 16 KB.
    """
    return value.is_floating_point() and key.rpartition(".")[2] != "w"


def _path(source: str | Path, name: str) -> Path:
    """The file behind `demo`, a repository or a path."""
    if str(source).startswith(HUB_PREFIX):
        held = hub_config(str(source)).architecture
        if is_t2t(name) or held != timm_name(name).partition(".")[0]:
            raise WeightsError(f"{source} holds weights of {held}, not of {name}: name that model")
        return hub_file(str(source))
    if str(source) != "demo":
        path = Path(source)
        if not path.exists() and not path.suffix:
            near = suggest(str(source), WEIGHTS_SOURCES)
            raise WeightsError(f"--weights {source} is neither a file nor one of {', '.join(WEIGHTS_SOURCES)}.{near}")
        check_readable(path)
        return path
    entry = ZOO.get(name)
    if entry is None:
        raise WeightsError(f"no demo weights are bundled for {name}: give --weights pretrained, none or a file")
    if not entry.demo_file.is_file():
        raise WeightsError(
            f"the bundled weights {entry.demo_file} are missing: reinstall, or give --weights none or a file"
        )
    return entry.demo_file


def _hub_said(source: str | Path) -> Mapping[str, Said]:
    return hub_config(str(source)).said if str(source).startswith(HUB_PREFIX) else {}


def _classes(source: str | Path, path: Path, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names that a source gives its outputs, None where it gives none."""
    if str(source).startswith(HUB_PREFIX):
        return hub_config(str(source)).classes
    return parse_classes(path, metadata)


def _checkpoint(source: str | Path, config: ModelConfig) -> Checkpoint:
    if str(source) == "pretrained":
        return pretrained_checkpoint(config)
    checkpoint = read_checkpoint(_path(source, config.name))
    _check_model(checkpoint.path, checkpoint.metadata, config.name)
    return checkpoint


def _check_model(path: Path, metadata: Mapping[str, str], name: str) -> None:
    written_for = metadata.get("model")
    if written_for is not None and written_for != name:
        raise WeightsError(
            f"{path} holds weights of {written_for}, not of {name}: name that model or give another file"
        )


def _scale(name: str, chosen: float | None, metadata: Mapping[str, str], path: Path | None) -> float | None:
    """The attention scale that weights need: the user's, the file's own, else that of the published checkpoints."""
    if chosen is not None or not is_t2t(name):
        return chosen
    text = metadata.get("qk_scale")
    if text is None:
        from pipeline.models.t2t_vit import PUBLISHED_QK_SCALE

        return PUBLISHED_QK_SCALE
    try:
        return float(text)
    except ValueError:
        raise WeightsError(f"{path}: its metadata `qk_scale` is not a number ({text[:40]!r})") from None
