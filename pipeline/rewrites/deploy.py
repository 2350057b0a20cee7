"""The deploy form of a T2T-ViT: the list of rewrites, in order."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from pipeline.models.t2t_vit import T2TViT
from pipeline.rewrites import (
    attention,
    class_token,
    image_norm,
    kqv,
    performer,
    residual,
    rotation,
    soft_split,
    token_mlp,
    token_norm,
    token_split,
)
from pipeline.rewrites.form import DeployForm

Rewrite = Callable[[DeployForm], None]

#: Each is exact, and builds on those before it.
ORDER: tuple[tuple[str, Rewrite], ...] = (
    ("first soft split as slices", soft_split.rewrite),
    ("norm folded into k, q and v", kqv.rewrite),
    ("random projection as a rotation", rotation.rewrite),
    ("centred residual stream", residual.rewrite),
    ("norm of image patches with products", image_norm.rewrite),
    ("norm of token patches from moments", token_norm.rewrite),
    ("token patches as slices", token_split.rewrite),
    ("Performer as two softmaxes", performer.rewrite),
    ("norm of the Performer's MLP", token_mlp.rewrite),
    ("attention without what softmax ignores", attention.rewrite),
    ("last block for the class token", class_token.rewrite),
)


def in_form(model: nn.Module, form: str) -> nn.Module:
    """The model as it is quantized and converted: rewritten if it is a T2T-ViT and `form` is "deploy", else itself."""
    return deploy_form(model) if form == "deploy" and isinstance(model, T2TViT) else model


def deploy_form(model: T2TViT, rewrites: int = len(ORDER)) -> DeployForm:
    """`model` after the first so many rewrites, in its mode and dtype and on its device; it is not changed itself."""
    form = DeployForm(copy.deepcopy(model).cpu())
    with torch.no_grad():
        for _, rewrite in ORDER[:rewrites]:
            rewrite(form)
    return form.train(model.training).to(model.pos_embed)
