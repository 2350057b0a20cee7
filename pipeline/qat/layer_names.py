"""Options of a run in, the names that its Linears and convolutions will have out, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pipeline.config import RunConfig
from pipeline.errors import UsageError, suggest
from pipeline.models.build import build
from pipeline.qat.graph import export
from pipeline.qat.quantizer import layer_name, weighted_layers
from pipeline.rewrites.deploy import in_form

CLASSES = 10  # of any number of classes the names are the same


def layer_names(config: RunConfig) -> frozenset[str]:
    """What Scheme.float_layers can name.

    Raises:
        UsageError: an unknown model, or an image size that it does not take.
    """
    with torch.random.fork_rng(devices=[]):
        module, model_config = build(config.model, CLASSES, config.img_size, config.qk_scale)
    with torch.no_grad():
        program = export(in_form(module.eval(), config.form), model_config.input_size)
    return frozenset(layer_name(node) for node in weighted_layers(program.module(), frozenset()))


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """
    Raises:
        UsageError: a name that no layer has, with the nearest one.
    """
    every = sorted(known)
    for name in sorted(set(names) - set(every)):
        raise UsageError(
            f"float layer {name!r} is no Linear or convolution of this model and form.{suggest(name, every)} "
            f"Its {len(every)} layers begin with {', '.join(every[:3])}"
        )
