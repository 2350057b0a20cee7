"""A float model, a scheme and calibration images in; the prepared graph with its ranges set, ready to train or write,
and what was done to it, out.

Post-training quantization ends here; quantization-aware training begins here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pipeline.config import RunConfig
from pipeline.errors import TrainingError
from pipeline.qat.graph import prepare
from pipeline.qat.quantizer import Scheme
from pipeline.qat.reestimate import calibrate
from pipeline.qat.setting import EVAL_BATCH
from pipeline.qat.subject import Subject
from pipeline.rewrites.deploy import in_form

#: Images on which the rewritten model is compared with the float model, and the largest difference of their logits.
SAME_IMAGES, SAME_TOLERANCE = 4, 1e-4


@dataclass(frozen=True)
class CalibrationSet:
    """The seeded, class-balanced images that set the first ranges.

    Attributes:
        batches: begins anew at every call; images [B, 3, H, W].
        digest: over the images, their order and the transform.
    """

    batches: Callable[[], Iterator[Tensor]]
    images: int
    seed: int
    digest: str

    def facts(self) -> dict[str, Any]:
        return {"images": self.images, "seed": self.seed, "digest": self.digest}


def calibration_set(subject: Subject, images: int, seed: int, workers: int) -> CalibrationSet:
    """At most `images` images of the training split, of a stream among those that are kept of it."""
    from calibration.loader import eval_batches
    from calibration.sampler import calibration_subset, subset_digest

    train = subject.data.pool
    indices = calibration_subset(train.labels, min(images, len(train)), seed)

    def batches() -> Iterator[Tensor]:
        return (batch for batch, _, _ in eval_batches(train, subject.transform, EVAL_BATCH, indices, workers))

    return CalibrationSet(batches, len(indices), seed, subset_digest(train, indices, subject.transform))


def float_form(subject: Subject, config: RunConfig) -> nn.Module:
    """The float model as it is quantized and converted.

    Raises:
        TrainingError: it does not compute what the float model computes.
    """
    form = in_form(subject.model, config.form)
    if form is not subject.model:
        check_same(subject, form)
    return form


def calibrated_graph(
    subject: Subject, config: RunConfig, scheme: Scheme, images: CalibrationSet, device: torch.device
) -> tuple[GraphModule, dict[str, Any]]:
    """A prepared graph with int8 rounding on and observers frozen, in evaluation mode.

    Returns:
        the graph, and for the run's records: the calibration set, and what equalization and bias correction did.
    """
    facts = images.facts()
    form = float_form(subject, config)
    if config.equalize:
        from pipeline.rewrites.equalize import equalized

        form, equalization = equalized(form, next(images.batches()))
        facts["equalization"] = asdict(equalization)
    graph = prepare(form, subject.input_size, scheme).to(device)
    calibrate(graph, images.batches(), images.images, device)
    if config.bias_correction:
        from pipeline.qat.bias_correction import correct_biases

        facts["bias_correction"] = asdict(correct_biases(graph, images.batches, images.images, device))
    return graph, facts


def check_same(subject: Subject, form: nn.Module) -> None:
    """
    Raises:
        TrainingError: the rewritten model differs from the float model on images of the training split.
    """
    from calibration.loader import eval_batches

    first = range(min(SAME_IMAGES, len(subject.data.pool)))
    images, _, _ = next(eval_batches(subject.data.pool, subject.transform, SAME_IMAGES, first))
    with torch.no_grad():
        images = images.to(next(form.parameters()).device)
        expected, seen = subject.model(images).double(), form(images).double()
    error = float((seen - expected).norm() / expected.norm())
    if error > SAME_TOLERANCE:  # a NaN in the float model is told where its logits are scored
        raise TrainingError(
            f"the deploy form differs from the float model by {error:.1e} of its logits (rounding gives 1e-6): please "
            "report these weights; --form official quantizes them as they are"
        )
