"""A small T2T-ViT with known weights, and the comparisons that the tests of weights files share."""

from __future__ import annotations

import dataclasses

import torch
from alive import make_alive
from torch import Tensor, nn

from pipeline.models.build import ModelConfig, build

NAME, SIDE = "t2t_vit_7", 32  # 5 tokens: nothing about weights depends on how many
CLASSES = ("ant", "bee", "café", "dog")
OWN_SCALE = 0.11  # neither the published one nor that of the head width


@dataclasses.dataclass(frozen=True)
class Made:
    """A model and what rebuilds it."""

    model: nn.Module
    config: ModelConfig

    @property
    def state(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def make(seed: int = 0, num_classes: int = len(CLASSES), qk_scale: float = OWN_SCALE) -> Made:
    """The same seed gives the same weights, whatever the scale."""
    model, config = build(NAME, num_classes, SIDE, qk_scale)
    return Made(make_alive(model, seed), config)


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)


def assert_equal_tensors(seen: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert seen.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(seen[key], expected[key])] == []
