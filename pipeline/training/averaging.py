"""An exponential moving average of weights (EMA): the weights after every step in, smoother ones out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: After t steps the decay is at most (1 + t) / (10 + t), so that the first weights do not weigh for ever
#: (TensorFlow's ExponentialMovingAverage with num_updates; timm's ModelEmaV3 warms up likewise).
WARMUP_NUMERATOR, WARMUP_DENOMINATOR = 1, 10


class WeightAverage:
    """The average of a module's parameters (Polyak and Juditsky 1992); buffers are the module's own.

    Args:
        decay: of the average, in [0, 1); 0 is the last weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay = module, decay
        self.steps = 0
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if not self.decay:
            return
        self.steps += 1
        decay = min(self.decay, (WARMUP_NUMERATOR + self.steps) / (WARMUP_DENOMINATOR + self.steps))
        own, averaged = self._pairs()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, own, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights while the body runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Give the module the averaged weights for good."""
        if self.decay:
            self._swap()

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps, "average": self.average if self.decay else {}}

    def load_state_dict(self, state: dict[str, object]) -> None:
        steps, average = state["steps"], state["average"]
        assert isinstance(steps, int)
        assert isinstance(average, dict)
        self.steps = steps
        for name, value in average.items():
            self.average[name].copy_(value)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        named = dict(self.module.named_parameters())
        return [p.data for p in named.values()], [self.average[name] for name in named]

    def _swap(self) -> None:
        if not self.decay:
            return
        with torch.no_grad():
            for own, averaged in zip(*self._pairs(), strict=True):
                kept = own.clone()
                own.copy_(averaged)
                averaged.copy_(kept)
