"""Learning-rate schedule and steps by hand figures; numbers that no training can have are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hybrid import INPUT_SIZE, TinyHybrid
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e import FakeQuantize
from training_plan import train_plan

from calibration.augment import PRESETS
from pipeline.config import QatPlan, RunConfig
from pipeline.errors import UsageError
from pipeline.options import options_of
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.trainee import QatTrainee
from pipeline.training.loop import Phase, fit
from pipeline.training.plan import FloatRecipe, TrainPlan, qat_plan, tuning_plan


def test_warm_up_is_linear_and_the_rest_half_a_cosine() -> None:
    plan = train_plan(lr=1.0, warmup_fraction=0.2)
    rates = [plan.lr_at(step, 20) for step in range(20)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)  # half-way between step 4 and step 20
    assert rates[16] == pytest.approx(0.5 * (1 - 2**-0.5))  # three quarters: cos 135 degrees
    assert 0 < rates[-1] < 0.01
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    plan = train_plan(lr=2.0, warmup_fraction=0.0)
    assert [plan.lr_at(step, 4) for step in range(4)] == pytest.approx([2.0, 1 + 2**-0.5, 1.0, 1 - 2**-0.5])


def test_a_warm_up_over_everything_never_goes_down() -> None:
    plan = train_plan(lr=1.0, warmup_fraction=1.0)
    assert [plan.lr_at(step, 3) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75])


def test_one_step_trains_at_full_rate() -> None:
    assert train_plan(lr=0.3).lr_at(0, 1) == 0.3


@pytest.mark.parametrize(
    ("images", "batch_size", "max_steps", "steps"),
    [
        (64, 32, None, 2),
        (66, 32, None, 3),
        (65, 32, None, 2),
        (1437, 32, None, 45),
        (1437, 32, 20, 20),
        (1, 32, None, 0),
    ],
)
def test_steps_of_an_epoch(images: int, batch_size: int, max_steps: int | None, steps: int) -> None:
    """A last batch of one image is left out."""
    assert train_plan(batch_size=batch_size, max_steps=max_steps).steps_per_epoch(images) == steps


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": -1}, "--epochs is -1: give at least 0"),
        ({"batch_size": 1}, "--batch-size is 1: give at least 2"),
        ({"max_steps": 0}, "--max-steps is 0"),
        ({"lr": 0.0}, "--lr is 0.0: give a number above 0"),
        ({"lr": float("inf")}, "--lr is inf"),
        ({"clip_norm": float("nan")}, "--clip-norm is nan"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1"),
        ({"label_smoothing": 1.5}, "--label-smoothing is 1.5: give a number from 0.0 to 1.0"),
        ({"observer_freeze": -0.2}, "--observer-freeze is -0.2"),
        ({"distill": 1.1}, "--distill is 1.1: give a number from 0.0 to 1.0"),
        ({"ema": 1.0}, "--ema is 1.0: give a decay of at least 0 and below 1"),
        ({"ranges": "learnt"}, "Did you mean 'learned'"),
        ({"temperature": 0.0}, "--temperature is 0.0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_impossible_numbers_are_named(values: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RunConfig("t2t_vit_7", **values)  # type: ignore[arg-type]


@dataclass
class Seen:
    """A QAT trainee whose schedule is watched: for each step, whether observers and BatchNorm statistics moved."""

    trainee: QatTrainee
    observers: list[bool] = field(default_factory=list)
    batch_norm: list[bool] = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        return self.trainee.module

    def begin_step(self, epoch: int, done_fraction: float, images: Tensor) -> Tensor:
        images = self.trainee.begin_step(epoch, done_fraction, images)
        # Brighter step by step, so that whatever may move does.
        before = self._state()
        with torch.no_grad():
            self.module(images * (10 + 100 * done_fraction))
        after = self._state()
        self.observers.append(not torch.equal(before[0], after[0]))
        self.batch_norm.append(not torch.equal(before[1], after[1]))
        return images

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.trainee.loss(images, targets)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.trainee.parameter_groups()

    def begin_evaluation(self) -> None:
        self.trainee.begin_evaluation()

    def _state(self) -> tuple[Tensor, Tensor]:
        activations = [m for m in self.module.modules() if isinstance(m, FakeQuantize) and not m.is_per_channel]
        assert activations
        return (
            torch.cat([m.scale.detach().clone().flatten() for m in activations]),
            self.module.get_buffer("stem_norm.running_mean").clone(),
        )


IMAGES = torch.randn(4, *INPUT_SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph() -> GraphModule:
    torch.manual_seed(0)
    graph = prepare(TinyHybrid(), INPUT_SIZE, Scheme())
    calibrate(graph, [IMAGES], len(IMAGES), torch.device("cpu"))
    return graph


def watch(graph: GraphModule, plan: TrainPlan, folder: Path) -> Seen:
    """Training of a copy, 5 steps an epoch."""
    seen = Seen(QatTrainee(copy.deepcopy(graph), plan))

    def batches(epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for _ in range(first_step, 5):
            yield IMAGES, torch.arange(4), torch.arange(4)

    phase = Phase(
        name="qat",
        folder=folder,
        images=20,
        batches=batches,
        evaluate=lambda: (1, 2),
        on_epoch=lambda history: None,
        device=torch.device("cpu"),
        checkpoint_steps=100,
    )
    fit(seen, plan, phase)
    return seen


def test_scales_and_batch_norm_stand_still_from_their_fraction_of_all_steps_on(
    graph: GraphModule, tmp_path: Path
) -> None:
    """10 steps: observers move in steps 0 to 5 (of 0.6), BatchNorm statistics in steps 0 to 2 (of 0.3)."""
    plan = train_plan(epochs=2, batch_size=4, lr=1e-6, observer_freeze=0.6, batch_norm_freeze=0.3)
    seen = watch(graph, plan, tmp_path)
    assert seen.observers == [True] * 6 + [False] * 4
    assert seen.batch_norm == [True] * 3 + [False] * 7


@pytest.mark.parametrize(("freeze", "moves"), [(0.0, False), (1.0, True)])
def test_the_ends_of_the_freeze_schedule(freeze: float, moves: bool, graph: GraphModule, tmp_path: Path) -> None:
    plan = train_plan(epochs=1, batch_size=4, lr=1e-6, observer_freeze=freeze, batch_norm_freeze=freeze)
    seen = watch(graph, plan, tmp_path)
    assert seen.observers == seen.batch_norm == [moves] * 5


def test_every_option_of_qat_reaches_its_plan() -> None:
    """Each under its own name: an option that is renamed or left out of the plan fails here."""
    values: dict[str, Any] = {
        "epochs": 3, "batch_size": 4, "lr": 0.2, "weight_decay": 0.5, "label_smoothing": 0.2, "clip_norm": 3.0,
        "max_steps": 9, "seed": 7, "accumulate": 4, "observer_freeze": 0.2, "batch_norm_freeze": 0.3, "ema": 0.5,
        "dropout": True, "distill": 0.25, "temperature": 3.0, "distill_features": 0.5, "ranges": "learned",
    }  # fmt: skip
    assert values.keys() == options_of(QatPlan).keys()
    plan = qat_plan(RunConfig(model="t2t_vit_7", data="photos", **values))
    assert {name: getattr(plan, name) for name in values} == values
    assert (plan.hflip, plan.scale_min, plan.warmup_fraction) == (True, 0.6, 0.1)
    digits = qat_plan(RunConfig(model="t2t_vit_7"))
    assert (digits.hflip, digits.scale_min) == (False, 0.8)


def test_a_replaced_head_is_trained_by_the_light_recipe() -> None:
    """docs/training.md; what makes QAT stay near its teacher would keep a new head from learning its classes."""
    config = RunConfig("t2t_vit_7", data="photos", epochs=3, distill=1.0, ema=0.9, dropout=False, ranges="learned")
    plan = tuning_plan(config, head_replaced=True)
    light = FloatRecipe(augment="light", epochs=3, lr=config.float_lr).plan("t2t_vit_7", "photos")
    assert plan == light
    assert (plan.dropout, plan.distill, plan.distill_features, plan.ema, plan.ranges) == (True, 0, 0, 0, "observed")
    assert plan.augment == PRESETS["light"]
    assert (plan.hflip, plan.scale_min) == (True, 0.6)


def test_options_of_a_step_count_for_float_fine_tuning_too() -> None:
    values: dict[str, Any] = {
        "batch_size": 4, "accumulate": 2, "weight_decay": 0.5, "label_smoothing": 0.2, "clip_norm": 3.0,
        "max_steps": 9, "seed": 7,
    }  # fmt: skip
    plan = tuning_plan(RunConfig("t2t_vit_7", float_epochs=2, float_lr=0.3, **values), head_replaced=False)
    assert {name: getattr(plan, name) for name in values} == values
    assert (plan.epochs, plan.lr, plan.hflip, plan.scale_min) == (2, 0.3, False, 0.8)


@pytest.mark.parametrize(
    ("float_epochs", "head_replaced", "epochs"), [(None, False, 0), (None, True, 3), (0, True, 0), (5, False, 5)]
)
def test_epochs_of_float_fine_tuning(float_epochs: int | None, head_replaced: bool, epochs: int) -> None:
    config = RunConfig("t2t_vit_7", epochs=3, float_epochs=float_epochs)
    assert tuning_plan(config, head_replaced).epochs == epochs
