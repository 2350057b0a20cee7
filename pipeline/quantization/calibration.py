"""Set the ranges of a prepared graph from calibration images, and correct what calibration can correct.

Post-training quantization ends here; quantization-aware training begins here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver

from pipeline.config import RunConfig
from pipeline.errors import RunError, TrainingError
from pipeline.progress import Say, progress
from pipeline.quantization.graph import (
    prepare,
    save_program,
    set_fake_quantization,
    set_observers,
    set_training,
    to_qdq_program,
)
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.ranges import activations
from pipeline.rewrites.deploy import in_form
from pipeline.run import layout
from pipeline.run.facts import read_config, read_quantization
from pipeline.run.folder import Run
from pipeline.training.setting import EVAL_BATCH
from pipeline.training.subject import Subject, load_data, load_subject, seed_everything

#: Images on which the rewritten model is compared with the float model, and the largest difference of their logits.
SAME_IMAGES, SAME_TOLERANCE = 4, 1e-4
GRAPH_TOLERANCE = 1e-3  # of the graph without rounding: BatchNorms with a gain of zero have a small one there


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
        check_same(subject, form, "deploy form", SAME_TOLERANCE, "; --form official quantizes them as they are")
    return form


class Calibrated(NamedTuple):
    """A calibrated graph.

    Attributes:
        plain: the same before adaptive rounding and bias correction: without rounding it is the float model.
        facts: for the run's records: the calibration set, and what the corrections did.
    """

    graph: GraphModule
    plain: GraphModule
    facts: dict[str, Any]


def calibrated_graph(
    subject: Subject, config: RunConfig, scheme: Scheme, images: CalibrationSet, device: torch.device
) -> Calibrated:
    """A prepared graph with int8 rounding on and observers frozen, in evaluation mode."""
    facts = images.facts()
    form = float_form(subject, config)
    depthwise = any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in form.modules())
    equalize, rounding = (depthwise if o is None else o for o in (config.equalize, config.adaptive_rounding))
    if equalize:
        from pipeline.rewrites.equalize import equalized

        form, equalization = equalized(form, next(images.batches()))
        facts["equalization"] = asdict(equalization)
    graph = prepare(form, subject.input_size, scheme).to(device)
    calibrate(graph, images.batches(), images.images, device)
    set_fake_quantization(graph, False)
    check_same(subject, graph, "graph that is to be quantized", GRAPH_TOLERANCE)
    set_fake_quantization(graph, True)
    plain = copy.deepcopy(graph) if rounding or config.bias_correction else graph
    if rounding:
        from pipeline.quantization.adaptive_rounding import round_weights

        facts["adaptive_rounding"] = asdict(round_weights(graph, images.batches(), device))
    if config.bias_correction:
        from pipeline.quantization.bias_correction import correct_biases

        facts["bias_correction"] = asdict(correct_biases(graph, images.batches(), device))
    return Calibrated(graph, plain, facts)


def check_same(subject: Subject, form: nn.Module, what: str, tolerance: float, remedy: str = "") -> None:
    """
    Args:
        remedy: what the reader may do about it, beside a report.

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
    if error > tolerance:  # a NaN in the float model is told where its logits are scored
        raise TrainingError(
            f"the {what} differs from the float model by {error:.1e} of its logits, before anything is rounded to int8 "
            f"(the order of operations gives 1e-6): please report these weights{remedy}"
        )


def reestimate_ranges(graph: GraphModule, batches: Iterable[Tensor], images: int, device: torch.device) -> int:
    """Forget what the observers of activations have seen, and let them see `images` calibration images.

    Averages over the batches count each batch alike, not the first one most. Every layer is observed on inputs that
    were rounded before it, which is what it will read. The graph is left in evaluation mode with frozen observers and
    with fake quantization.

    Returns:
        how many ranges were estimated.

    Raises:
        TrainingError: the ranges are trained parameters, or there are no images; no range was changed.
    """
    modules = [module for _, module in activations(graph)]
    if any(module.log_scale is not None for module in modules):
        raise TrainingError("the ranges of this graph are trained: estimating them anew would throw that away")
    observe(graph, batches, images, device, True, "estimating ranges")
    return len(modules)


def calibrate(graph: GraphModule, batches: Iterable[Tensor], images: int, device: torch.device) -> None:
    """Post-training calibration: float forward passes over `images` images set every range, then int8 is on.

    Batches count alike. The graph is left in evaluation mode with frozen observers.

    Raises:
        TrainingError: there are no images.
    """
    observe(graph, batches, images, device, False, "calibration")


def observe(
    graph: GraphModule, batches: Iterable[Tensor], images: int, device: torch.device, rounded_inputs: bool, title: str
) -> None:
    """Let the observers of activations begin anew and see every batch alike.

    Args:
        rounded_inputs: of every layer; False observes the float activations.
    """
    rest = iter(batches)
    batch = next(rest, None)
    if batch is None:
        raise TrainingError("ranges cannot be estimated without images: give the calibration images")
    observers = [module.activation_post_process for _, module in activations(graph)]
    averaging = [observer for observer in observers if isinstance(observer, MovingAverageMinMaxObserver)]
    constants = [observer.averaging_constant for observer in averaging]
    set_training(graph, False)
    set_observers(graph, True)
    set_fake_quantization(graph, rounded_inputs)
    for observer in observers:
        observer.min_val.fill_(float("inf"))  # a histogram begins anew with that too
        observer.max_val.fill_(-float("inf"))
    with torch.no_grad(), progress(title, images) as bar:
        count = 0
        while batch is not None:
            count += 1
            for observer in averaging:
                observer.averaging_constant = 1 / count
            graph(batch.to(device))
            bar.advance(len(batch))
            batch = next(rest, None)
    for observer, constant in zip(averaging, constants, strict=True):
        observer.averaging_constant = constant
    set_observers(graph, False)
    set_fake_quantization(graph, True)


def ptq_program(run: Run, say: Say, activation_bits: int = 8) -> Path:
    """Calibrate the run's float weights with the run's own scheme and subset; kept in the run once it was made.

    Args:
        activation_bits: 8 or 16, whatever the run's scheme has.

    Raises:
        RunError: the data gives another calibration set than the one in the checkpoint.
        DataError: the data is gone.
    """
    name = layout.PTQ_PROGRAMS[activation_bits]
    if run.has(name):
        return run.file(name)
    config = read_config(run)
    quantization = read_quantization(run)
    width = "" if activation_bits == 8 else f" with {activation_bits}-bit activations"
    say(f"calibrating the float model for post-training quantization{width}")
    seed_everything(config.seed, config.threads)
    data = load_data(config.data, config.skip_bad)
    subject = load_subject(run.model, data, str(run.file(layout.FLOAT_WEIGHTS)), config.seed, config.img_size)
    images = calibration_set(subject, config.calibration_images, config.seed, config.workers)
    if images.digest != quantization.calibration["digest"]:
        raise RunError(
            f"the calibration images of {config.data} changed since run {run.id} (digest {images.digest[:12]}, "
            f"then {quantization.calibration['digest']:.12}): its scales could not be compared; quantize again"
        )
    options: dict[str, Any] = dict(quantization.scheme)
    scheme = replace(Scheme(**options), activation_bits=activation_bits)
    graph = calibrated_graph(subject, config, scheme, images, torch.device("cpu")).graph
    save_program(to_qdq_program(graph, subject.input_size), run.path / name)
    run.record(name)
    return run.path / name
