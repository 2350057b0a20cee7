"""Fits the tensors of a checkpoint to a model: a head for other classes, resized positions, all else compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import WeightsError
from pipeline.models.checkpoint import Checkpoint
from pipeline.models.zoo import is_t2t, published_config

if TYPE_CHECKING:
    from torch import Tensor, nn

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
