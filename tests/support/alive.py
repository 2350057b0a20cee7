"""A T2T-ViT in; the same module with reproducible random weights that keep its Performers alive out.

With freshly initialised weights the Performer's divisor D is about 1e-11, below the epsilon of 1e-8: the attention is
almost switched off and a test of it proves nothing. Here kqv weights are small (standard deviation 0.3 / sqrt(fan in)),
and LayerNorm gains and all biases are random.

The recipe uses only numpy.random.RandomState.random_sample (a frozen bit stream) and one QR factorisation, so the same
seed gives the same weights in every version of torch and numpy, whatever the order of the parameters.
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

KQV_STD = 0.3  # of a kqv output whose input has unit variance; 0.2 to 0.4 keeps D well above epsilon
QKV_STD = 2.0  # peaked attention, so that logits depend on the image and on qk_scale


def alive_values(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float32 values of one T2T-ViT parameter, named as the authors name it."""
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)

    def uniform(std: float) -> np.ndarray:
        return (random.random_sample(shape) * 2 - 1) * (std * 3**0.5)

    leaf = key.rsplit(".", 1)[-1]
    if leaf == "w":  # random features: orthogonal rows of length sqrt(m), as the authors draw them
        features, dim = shape
        orthogonal, triangle = np.linalg.qr(random.random_sample((dim, features)) - 0.5)
        return ((orthogonal * np.sign(np.diag(triangle))).T * features**0.5).astype(np.float32)
    if leaf == "cls_token":
        values = uniform(0.1)
    elif leaf == "bias":
        values = uniform(0.2)
    elif len(shape) == 1:  # LayerNorm gain
        values = 1 + uniform(0.25)
    else:
        gain = KQV_STD if ".kqv." in key else QKV_STD if ".qkv." in key else 1.0
        values = uniform(gain * shape[1] ** -0.5)
    return values.astype(np.float32)


def make_alive(model: M, seed: int = 0) -> M:
    """Fill `model` (ours or the authors'; same key names) in place, put it in eval mode and return it.

    The position embedding keeps its sinusoid table.
    """
    state = {
        key: torch.from_numpy(alive_values(key, tuple(value.shape), seed))
        for key, value in model.state_dict().items()
        if key != "pos_embed"
    }
    model.load_state_dict(state, strict=False)
    return model.eval()


def alive_images(count: int, side: int = 224, seed: int = 0) -> Tensor:
    """Normalised images [count, 3, side, side], float32: noise in turn with a ramp that has a flat patch in it."""
    random = np.random.RandomState(seed)
    images = random.random_sample((count, 3, side, side)) * 4 - 2
    ramp = np.linspace(-2, 2, side)
    for index in range(1, count, 2):
        slope = random.random_sample((3, 2)) * 2 - 1
        images[index] = slope[:, :1, None] * ramp + slope[:, 1:, None] * ramp[:, None]
        corner = random.randint(0, side // 2)
        images[index, :, corner : corner + side // 3, corner : corner + side // 3] = random.random_sample((3, 1, 1))
    return torch.from_numpy(images.astype(np.float32))


@torch.no_grad()
def smallest_divisor(model: nn.Module, images: Tensor) -> float:
    """The smallest Performer divisor D over both T2T stages and all tokens; alive means far above 1e-8."""
    smallest: list[float] = []

    def look(module: nn.Module, inputs: tuple[Tensor], kqv: Tensor) -> None:
        k, q, _ = kqv.double().chunk(3, dim=-1)
        w = owner[module].w.double()
        kp, qp = (torch.exp(x @ w.T - (x * x).sum(-1, keepdim=True) / 2) / len(w) ** 0.5 for x in (k, q))
        smallest.append(float((qp @ kp.sum(dim=1).unsqueeze(-1)).min()))

    owner = {m.kqv: m for m in model.modules() if hasattr(m, "kqv")}
    hooks = [linear.register_forward_hook(look) for linear in owner]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return min(smallest)
