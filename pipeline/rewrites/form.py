"""T2T-ViT as slots that the rewrites fill one by one.

A new form computes what the official model computes, with the official modules in its slots. It takes images of one
size, the one that the model was built for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.t2t_vit import T2TViT, TokenPerformer


class Grid(nn.Module):
    """Tokens of a square grid, [B, side^2, C] -> image [B, C, side, side]."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.side, self.side, x.shape[-1]).permute(0, 3, 1, 2)


class Unfolded(nn.Module):
    """The official soft split: image [B, C, H, W] -> patches [B, T, C k k]."""

    def __init__(self, unfold: nn.Unfold):
        super().__init__()
        self.unfold = unfold

    def forward(self, image: Tensor) -> Tensor:
        return self.unfold(image).transpose(1, 2)


class Kqv(nn.Module):
    """Soft split, LayerNorm and kqv Linear: image or tokens -> keys, queries, values, each [B, T, token_dim]."""

    def __init__(self, split: nn.Module, performer: TokenPerformer):
        super().__init__()
        self.split, self.norm, self.kqv = split, performer.norm1, performer.kqv

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.kqv(self.norm(self.split(x))).chunk(3, dim=-1)


class Attend(nn.Module):
    """Keys, queries, values -> values plus projected attention, [B, T, token_dim]."""

    def __init__(self, performer: TokenPerformer):
        super().__init__()
        self.performer = performer

    def forward(self, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        return self.performer.attend(k, q, v)


class TokenMlp(nn.Module):
    """x + mlp(norm(x)) over tokens [B, T, token_dim]."""

    def __init__(self, norm: nn.Module, mlp: nn.Module):
        super().__init__()
        self.norm, self.mlp = norm, mlp

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Stage(nn.Module):
    """One soft split with its Performer: image or tokens in, tokens [B, T, token_dim] out.

    Attributes:
        kqv, attend, mlp: modules with the shapes of Kqv, Attend and TokenMlp; each rewrite knows what the one before it
            has put there.
    """

    kqv: Any
    attend: Any
    mlp: Any

    def __init__(self, split: nn.Module, performer: TokenPerformer):
        super().__init__()
        self.kqv = Kqv(split, performer)
        self.attend = Attend(performer)
        self.mlp = TokenMlp(performer.norm2, performer.mlp)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attend(*self.kqv(x)))


class Embedding(nn.Module):
    """The last soft split and its projection, class token and positions: tokens -> [B, N + 1, embed_dim].

    Attributes:
        class_token: with its position, [1, 1, embed_dim].
        position: of the patches, [1, N, embed_dim].
    """

    split: nn.Module
    project: nn.Linear

    def __init__(self, split: nn.Module, model: T2TViT):
        super().__init__()
        self.split, self.project = split, model.tokens_to_token.project
        self.class_token = nn.Parameter(model.cls_token + model.pos_embed[:, :1])
        self.position = nn.Parameter(model.pos_embed[:, 1:].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.split(x)) + self.position
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)


class Readout(nn.Module):
    """Final norm and head of the class token: [B, N, embed_dim] -> logits [B, num_classes]."""

    def __init__(self, model: T2TViT):
        super().__init__()
        self.norm, self.head = model.norm, model.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x)[:, 0])


class DeployForm(nn.Module):
    """The slots. The modules of the given model are taken over, not copied.

    Attributes:
        side: of the token grid after the first soft split; half of it after the second.
        blocks: a list of modules [B, N + 1, embed_dim] -> the same, and the last one whatever `readout` takes.
    """

    blocks: Any
    readout: Any

    def __init__(self, model: T2TViT):
        super().__init__()
        t2t = model.tokens_to_token
        self.side = model.img_size // 4
        self.stage1 = Stage(Unfolded(t2t.soft_split0), t2t.attention1)
        self.stage2 = Stage(nn.Sequential(Grid(self.side), Unfolded(t2t.soft_split1)), t2t.attention2)
        self.embed = Embedding(nn.Sequential(Grid(self.side // 2), Unfolded(t2t.soft_split2)), model)
        self.blocks = model.blocks
        self.readout = Readout(model)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.stage2(self.stage1(x)))
        for block in self.blocks:
            x = block(x)
        return self.readout(x)
