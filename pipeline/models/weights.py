"""Load, fit and save the float weights of a model: a head for other classes, resized positions, a record of both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import WeightsError
from pipeline.files import write_atomic
from pipeline.models.build import ModelConfig, build
from pipeline.models.checkpoint import Checkpoint, check_readable, parse_classes, read_checkpoint, read_metadata
from pipeline.models.download import IMAGENET_CLASSES, pretrained_checkpoint, pretrained_classes
from pipeline.models.zoo import WEIGHTS_SOURCES, ZOO, check_name, is_t2t, published_config
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
    """

    source: str
    qk_scale: float | None
    num_classes: int | None
    classes: tuple[str, ...] | None


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
    """A model with its weights, in eval mode, and all that is known about them."""

    model: nn.Module
    config: ModelConfig
    record: LoadedWeights


def peek(source: str | Path, name: str, qk_scale: float | None = None) -> WeightsInfo:
    """Look at a source without building a model and without downloading anything.

    Args:
        qk_scale: the user's choice; wins over what the source says.

    Raises:
        UsageError: unknown model.
        WeightsError: the source does not exist, is damaged, or was written for another model.
    """
    check_name(name)
    if str(source) == "none":
        return WeightsInfo("none", qk_scale, None, None)
    if str(source) == "pretrained":
        return WeightsInfo("pretrained", _scale(name, qk_scale, {}, None), pretrained_classes(name), None)
    path = _path(source, name)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    _check_model(path, metadata, name)
    classes = parse_classes(path, metadata)
    count = len(classes) if classes else head_classes(name, read_checkpoint(path).tensors)
    return WeightsInfo(str(source), _scale(name, qk_scale, metadata, path), count, classes)


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
    named = parse_classes(checkpoint.path, checkpoint.metadata)
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
) -> LoadedModel:
    """Build a model as its weights need it, and fill it.

    Args:
        classes: how many the model is for, or their names in label order; a file that names others loses its head.
            None takes the source's own, or 1000 for `none`.

    Raises:
        UsageError, WeightsError: see the three functions.
    """
    info = peek(source, name, qk_scale)
    names = None if classes is None or isinstance(classes, int) else classes
    count = classes if isinstance(classes, int) else len(classes or ())
    model, config = build(name, count or info.num_classes or IMAGENET_CLASSES, img_size, info.qk_scale)
    record = load_weights(model, config, source, names, other_qk_scale=qk_scale is not None)
    return LoadedModel(model, config, record)


def save_weights(
    model: nn.Module,
    config: ModelConfig,
    path: Path,
    classes: Sequence[str],
    half: bool = False,
    extra_metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file that says which model, scale and classes it is for; whole or not at all.

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
    """The file behind `demo` or a path."""
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


POSITION_EMBEDDING = "pos_embed"
_SHOWN_KEYS = 3


def head_names(name: str) -> tuple[str, ...]:
    """Module names of the classifier of a zoo or timm model (several for distilled ones)."""
    if is_t2t(name):
        return ("head",)
    config = published_config(name)
    classifier = config.classifier if config is not None else None
    return (classifier,) if isinstance(classifier, str) else tuple(classifier or ())


def head_classes(name: str, tensors: Mapping[str, Tensor]) -> int | None:
    """Outputs of the head among `tensors`; None where there is no head of the expected name."""
    for head in head_names(name):
        weight = tensors.get(f"{head}.weight")
        if weight is not None:
            return int(weight.shape[0])
    return None


def fit_state(
    model: nn.Module, name: str, checkpoint: Checkpoint, other_classes: bool
) -> tuple[dict[str, Tensor], bool, bool]:
    """Keep the model's head where the classes differ, resize the position embedding, compare the rest.

    Args:
        other_classes: the head is for other classes although there may be as many of them.

    Returns:
        tensors for `load_state_dict(strict=True)`; whether the head is the model's fresh one, and whether the file was
        trained at another image size.

    Raises:
        WeightsError: any other difference; names the file, how many keys differ, and the first ones.
    """
    own = model.state_dict()
    state = dict(checkpoint.tensors)
    replaced = False
    for head in head_names(name):
        weight = f"{head}.weight"
        if weight in own and weight in state and (other_classes or own[weight].shape[0] != state[weight].shape[0]):
            if own[weight].shape[1:] != state[weight].shape[1:]:
                continue  # another architecture, told below
            for key in (weight, f"{head}.bias"):
                if key in own:
                    state[key] = own[key]
            replaced = True
    resized = _resize_position_embedding(own, state)
    _compare(own, state, checkpoint, name)
    return state, replaced, resized


def _resize_position_embedding(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
    wanted, table = own.get(POSITION_EMBEDDING), state.get(POSITION_EMBEDDING)
    if wanted is None or table is None or wanted.shape == table.shape or table.dim() != 3 or wanted.dim() != 3:
        return False
    sides = [math.isqrt(max(0, t.shape[1] - 1)) for t in (wanted, table)]
    square_with_class_token = all(
        side > 0 and side**2 + 1 == t.shape[1] for side, t in zip(sides, (wanted, table), strict=True)
    )
    if not square_with_class_token or wanted.shape[2] != table.shape[2]:
        return False
    from pipeline.models.t2t_vit import resize_position_embedding

    state[POSITION_EMBEDDING] = resize_position_embedding(table, wanted.shape[1])
    return True


def _compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor], checkpoint: Checkpoint, name: str) -> None:
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    other_shape = [
        f"{key} (file {_shape(state[key])}, model {_shape(own[key])})"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if not (missing or unexpected or other_shape):
        return
    found = [
        f"{len(keys)} {what} ({', '.join(keys[:_SHOWN_KEYS])}{', ...' if len(keys) > _SHOWN_KEYS else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("with another shape", other_shape))
        if keys
    ]
    raise WeightsError(
        f"{checkpoint.path} ({checkpoint.container}) does not fit {name}, which has {len(own)} tensors: "
        f"{'; '.join(found)}. Is it a file of another model?"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
