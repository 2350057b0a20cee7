"""The training loop on a small network: deterministic, resumable to the same bits, stopped by what is not finite."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_hybrid import CLASSES, INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from training_plan import train_plan

from pipeline.errors import RunError, TrainingError
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.ranges import learn_ranges
from pipeline.quantization.trainee import QatTrainee, teacher_of
from pipeline.run.layout import BEST_FILE, RESUME_FILE
from pipeline.training.best_epoch import BestEpoch
from pipeline.training.loop import EpochRecord, Phase, Trainee, fit
from pipeline.training.plan import TrainPlan
from pipeline.training.trainees import FloatTrainee, Format, Precision

BATCH, STEPS, EPOCHS = 4, 5, 2
PLAN = train_plan(epochs=EPOCHS, batch_size=BATCH, lr=1e-3, max_steps=STEPS)


class WithDropout(nn.Sequential):
    """Draws from torch's generator in every step, as T2T-ViT's Performer does."""

    def __init__(self) -> None:
        super().__init__(TinyHybrid(), nn.Dropout(0.3))


def float_trainee() -> Trainee:
    torch.manual_seed(1)
    return FloatTrainee(WithDropout(), PLAN)


def qat_trainee() -> Trainee:
    torch.manual_seed(1)
    graph = prepare(WithDropout(), INPUT_SIZE, Scheme())
    calibrate(graph, [batch(0, 0)[0]], BATCH, torch.device("cpu"))
    return QatTrainee(graph, PLAN)


def batch(epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * epoch + step)
    images = torch.randn(BATCH, *INPUT_SIZE, generator=generator)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator), torch.arange(BATCH)


def phase(folder: Path, at_step: Callable[[int, int], None] = lambda epoch, step: None, every: int = 100) -> Phase:
    def batches(epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for step in range(first_step, STEPS):
            at_step(epoch, step)
            yield batch(epoch, step)

    return Phase(
        name="float",
        folder=folder,
        images=BATCH * STEPS,
        batches=batches,
        evaluate=lambda: (1, 2),
        on_epoch=lambda history: None,
        device=torch.device("cpu"),
        checkpoint_steps=every,
    )


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def untimed(history: list[EpochRecord]) -> list[tuple[object, ...]]:
    return [(r.phase, r.epoch, r.step, r.loss, r.lr, r.top1, r.n) for r in history]


@pytest.mark.parametrize("make", [float_trainee, qat_trainee])
@pytest.mark.parametrize("stop_at", [(0, 0), (0, 3), (1, 2)])
def test_interrupted_training_resumes_to_the_same_bits(
    make: Callable[[], Trainee], stop_at: tuple[int, int], tmp_path: Path
) -> None:
    straight = make()
    history = fit(straight, PLAN, phase(tmp_path / "straight"))
    assert len(history) == EPOCHS

    def interrupt(epoch: int, step: int) -> None:
        if (epoch, step) == stop_at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(make(), PLAN, phase(tmp_path / "cut", interrupt))
    assert (tmp_path / "cut" / RESUME_FILE).exists()
    torch.manual_seed(99)  # another process has another generator state
    resumed = make()
    assert untimed(fit(resumed, PLAN, phase(tmp_path / "cut"))) == untimed(history)
    assert same_bits(straight.module, resumed.module)


def test_a_crash_resumes_from_the_last_resume_point(tmp_path: Path) -> None:
    straight = float_trainee()
    fit(straight, PLAN, phase(tmp_path / "straight"))

    def crash(epoch: int, step: int) -> None:
        if (epoch, step) == (1, 3):
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(float_trainee(), PLAN, phase(tmp_path / "cut", crash, every=2))
    resumed = float_trainee()
    fit(resumed, PLAN, phase(tmp_path / "cut"))
    assert same_bits(straight.module, resumed.module)


def test_the_same_seed_gives_the_same_bits_and_training_moves_the_weights(tmp_path: Path) -> None:
    first, second = float_trainee(), float_trainee()
    fit(first, PLAN, phase(tmp_path / "a"))
    torch.manual_seed(5)
    fit(second, PLAN, phase(tmp_path / "b"))
    assert same_bits(first.module, second.module)
    assert not same_bits(first.module, float_trainee().module)


def test_training_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    trainee = float_trainee()
    before = torch.get_rng_state()
    fit(trainee, PLAN, phase(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


class Poisoned(nn.Module):
    """A layer whose output turns to infinity at the third call."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CLASSES, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        x = self.first(x)
        if self.calls >= 3:
            x = x / 0.0
        return x.mean((2, 3))


def test_a_loss_that_is_not_finite_stops_with_step_and_module_and_keeps_the_resume_point(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Poisoned()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    with pytest.raises(TrainingError, match=r"step 2 of 10.*body.*kept") as caught:
        fit(FloatTrainee(Net(), PLAN), PLAN, phase(tmp_path, every=1))
    assert caught.value.exit_code == 5
    saved = torch.load(tmp_path / RESUME_FILE, weights_only=True)
    assert saved["state"]["step_in_epoch"] == 2
    assert all(torch.isfinite(v).all() for v in saved["module"].values())


def test_a_resume_point_of_another_plan_or_damaged_is_refused(tmp_path: Path) -> None:
    def interrupt(epoch: int, step: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(float_trainee(), PLAN, phase(tmp_path, interrupt))
    other = train_plan(epochs=EPOCHS, batch_size=BATCH, lr=5e-4, max_steps=STEPS)
    with pytest.raises(RunError, match="settings of lr"):
        fit(float_trainee(), other, phase(tmp_path))
    (tmp_path / RESUME_FILE).write_bytes(b"half a file")
    with pytest.raises(RunError, match="cannot be read"):
        fit(float_trainee(), PLAN, phase(tmp_path))


def test_half_size_epochs_see_smaller_images() -> None:
    trainee = FloatTrainee(nn.Identity(), train_plan(epochs=2, half_size_epochs=1))
    images = torch.randn(2, 3, 32, 32)
    assert trainee.begin_step(0, 0.0, images).shape == (2, 3, 16, 16)
    assert trainee.begin_step(1, 0.5, images) is images


def distilled_trainee(plan: TrainPlan) -> Trainee:
    torch.manual_seed(1)
    graph = prepare(WithDropout(), INPUT_SIZE, Scheme())
    calibrate(graph, [batch(0, 0)[0]], BATCH, torch.device("cpu"))
    teacher = teacher_of(graph, plan)
    if plan.ranges == "learned":
        learn_ranges(graph)
    return QatTrainee(graph, plan, teacher)


@pytest.mark.parametrize(
    ("parts", "number_format"),
    [
        ({"accumulate": 2, "ema": 0.8, "distill": 0.7, "distill_features": 1.0}, "off"),
        ({"ranges": "learned", "dropout": False, "ema": 0.5}, "off"),
        ({"distill": 1.0}, "bf16"),
        ({"ema": 0.8}, "fp16"),
    ],
)
def test_every_part_of_the_recipe_resumes_to_the_same_bits(
    parts: dict[str, Any], number_format: Format, tmp_path: Path
) -> None:
    plan = replace(PLAN, max_steps=STEPS // parts.get("accumulate", 1), **parts)

    def run(folder: Path, at_step: Callable[[int, int], None] = lambda epoch, step: None) -> Trainee:
        trainee = distilled_trainee(plan)
        fit(trainee, plan, replace(phase(folder, at_step, every=1), precision=Precision(number_format)))
        return trainee

    def crash(epoch: int, step: int) -> None:
        if (epoch, step) == (1, 3):
            raise MemoryError

    straight = run(tmp_path / "straight")
    with pytest.raises(MemoryError):
        run(tmp_path / "cut", crash)
    assert same_bits(straight.module, run(tmp_path / "cut").module)


def test_the_averaged_weights_are_scored_and_kept(tmp_path: Path) -> None:
    plan = replace(PLAN, ema=0.9, epochs=1)
    last, averaged = float_trainee(), float_trainee()
    fit(last, replace(plan, ema=0.0), phase(tmp_path / "last"))
    scored: list[dict[str, Tensor]] = []

    def evaluate() -> tuple[int, int]:
        scored.append({name: p.detach().clone() for name, p in averaged.module.named_parameters()})
        return 1, 2

    fit(averaged, plan, replace(phase(tmp_path / "averaged"), evaluate=evaluate))
    kept = dict(averaged.module.named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in scored[-1].items())
    assert not same_bits(last.module, averaged.module)


def test_float16_leaves_out_steps_that_overflow_and_lowers_the_scale(tmp_path: Path) -> None:
    """Gradients times 65536 are above 65504 where the loss is large; the weights must stand still until it fits."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))
    with torch.no_grad():
        module[1].weight.mul_(100)
    before = module[1].weight.detach().clone()
    plan = replace(PLAN, epochs=1, max_steps=1)
    fit(FloatTrainee(module, plan), plan, replace(phase(tmp_path), precision=Precision("fp16")))
    saved = torch.load(tmp_path / RESUME_FILE, weights_only=True)
    assert torch.equal(before, module[1].weight)
    assert saved["scaler"]["scale"] < 65536
    plan = replace(PLAN, epochs=4)
    fit(FloatTrainee(module, plan), plan, replace(phase(tmp_path / "more"), precision=Precision("fp16")))
    assert not torch.equal(before, module[1].weight)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_without_dropout_two_passes_are_the_same() -> None:
    images = batch(0, 0)[0]
    for make in (
        lambda plan: FloatTrainee(WithDropout(), plan),
        distilled_trainee,
    ):
        for dropout in (False, True):
            trainee = make(replace(PLAN, dropout=dropout, batch_norm_freeze=0.0, observer_freeze=0.0))
            trainee.begin_step(0, 0.5, images)
            with torch.no_grad():
                first, second = trainee.module(images), trainee.module(images)
            assert torch.equal(first, second) is not dropout


#: Right on none, one and both of the images of REFERENCE.
REFERENCE = np.array([[2.0, 0.0], [0.0, 2.0]])
WRONG, HALF, RIGHT = -REFERENCE, np.abs(REFERENCE[[0, 0]]), 3 * REFERENCE


def with_best_epoch(folder: Path, scores: dict[int, np.ndarray], crash_at: tuple[int, int] = (-1, -1)) -> nn.Module:
    """With averaged weights, and the best epoch's at the end."""
    plan = train_plan(epochs=3, batch_size=4, lr=1e-2, max_steps=5, ema=0.5)
    torch.manual_seed(1)
    module = TinyHybrid()
    best = BestEpoch(folder / BEST_FILE, module, REFERENCE, np.array([0, 1]))

    def crash(epoch: int, step: int) -> None:
        if (epoch, step) == crash_at:
            raise MemoryError

    def offer(epoch: int) -> None:
        best.offer(epoch, scores[epoch])
        torch.save(module.state_dict(), folder / f"scored-{epoch}.pt")

    fit(FloatTrainee(module, plan), plan, replace(phase(folder, crash), on_scored=offer))
    kept = best.take()
    assert kept is not None
    return module


@pytest.mark.parametrize(
    ("scores", "best"),
    [({1: WRONG, 2: RIGHT, 3: HALF}, 2), ({1: RIGHT, 2: WRONG, 3: RIGHT}, 1), ({1: WRONG, 2: HALF, 3: RIGHT}, 3)],
)
def test_what_was_scored_is_what_is_kept_and_an_interruption_changes_nothing(
    scores: dict[int, np.ndarray], best: int, tmp_path: Path
) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    straight.mkdir()
    cut.mkdir()
    module = with_best_epoch(straight, scores)
    scored = torch.load(straight / f"scored-{best}.pt")
    assert all(torch.equal(scored[name], value) for name, value in module.state_dict().items())
    with pytest.raises(MemoryError):
        with_best_epoch(cut, scores, crash_at=(2, 1))  # in the last epoch, begun anew by the resume
    assert same_bits(module, with_best_epoch(cut, scores))
