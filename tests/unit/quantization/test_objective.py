"""What training minimises, against scipy and hand figures; the teacher is the float model and moves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from tiny_hybrid import CLASSES, INPUT_SIZE, TinyHybrid
from torch import nn
from torch.fx import GraphModule
from training_plan import train_plan

from pipeline.errors import TrainingError
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare
from pipeline.quantization.quantizer import Scheme
from pipeline.quantization.trainee import QatTrainee, distillation, feature_distance, feature_names, teacher_of
from pipeline.training.trainees import cross_entropy


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_kl_divergence_of_softened_answers(temperature: float) -> None:
    student, teacher = logits(1), logits(2)
    expected = temperature**2 * np.mean(
        rel_entr(softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)).sum(1)
    )
    assert float(distillation(student, teacher, temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation(teacher, teacher, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_labels_and_soft_targets_with_the_same_smoothing_give_the_same_loss() -> None:
    values, labels = logits(3), torch.tensor([0, 1, 2, 3, 4, 0])
    smoothed = torch.full((6, 5), 0.1 / 5)
    smoothed[torch.arange(6), labels] += 0.9
    expected = -(smoothed.numpy() * log_softmax(values.numpy(), axis=1)).sum(1).mean()
    assert float(cross_entropy(values, labels, 0.1)) == pytest.approx(expected, rel=1e-5)
    assert float(cross_entropy(values, smoothed, 0.1)) == pytest.approx(expected, rel=1e-5)


def test_feature_distance_is_relative_to_the_teacher() -> None:
    teacher = torch.tensor([3.0, 4.0])
    assert float(feature_distance(torch.tensor([3.0, 3.0]), teacher)) == pytest.approx(1 / 25)


@pytest.fixture
def graph() -> GraphModule:
    torch.manual_seed(0)
    prepared = prepare(TinyHybrid(), INPUT_SIZE, Scheme())
    calibrate(prepared, [torch.randn(8, *INPUT_SIZE)], 8, torch.device("cpu"))
    return prepared


def test_the_teacher_computes_the_float_model_and_stands_still(graph: GraphModule) -> None:
    torch.manual_seed(0)
    model = TinyHybrid().eval()
    teacher = teacher_of(graph, train_plan(distill=1.0, distill_features=1.0))
    assert teacher is not None
    assert len(teacher.features) == 2  # after attention and after the MLP
    images = torch.randn(4, *INPUT_SIZE)
    with torch.no_grad():
        assert torch.allclose(teacher.module(images), model(images), atol=1e-5)
    assert not any(p.requires_grad for p in teacher.module.parameters())
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    trainee = QatTrainee(graph, train_plan(distill=1.0, distill_features=1.0), teacher)
    trainee.loss(trainee.begin_step(0, 0.0, images), torch.zeros(4, dtype=torch.int64)).backward()
    after = teacher.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_distillation_alone_pulls_a_moved_student_back_to_its_teacher(graph: GraphModule) -> None:
    """Without labels: they are random here, and the answer to each is the teacher's."""
    plan = train_plan(distill=1.0, temperature=1.0, distill_features=1.0)
    teacher = teacher_of(graph, plan)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainee = QatTrainee(graph, plan, teacher)
    images, labels = torch.randn(16, *INPUT_SIZE), torch.randint(CLASSES, (16,))
    optimizer = torch.optim.AdamW(trainee.parameter_groups(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = trainee.loss(trainee.begin_step(0, 0.0, images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_each_part_of_the_objective_is_in_the_loss(graph: GraphModule) -> None:
    images, labels = torch.randn(4, *INPUT_SIZE), torch.tensor([0, 1, 2, 3])

    def loss(**parts: float) -> float:
        plan = train_plan(dropout=False, batch_norm_freeze=0.0, observer_freeze=0.0, **parts)  # type: ignore[arg-type]
        trainee = QatTrainee(graph, plan, teacher_of(graph, plan))
        with torch.no_grad():
            return trainee.loss(trainee.begin_step(0, 0.0, images), labels).item()

    labels_alone, logits_alone = loss(), loss(distill=1.0)
    features_too = loss(distill=1.0, distill_features=2.0)
    assert loss(distill=0.25) == pytest.approx(0.75 * labels_alone + 0.25 * logits_alone, rel=1e-5)
    assert features_too > logits_alone
    assert loss(distill=1.0, distill_features=4.0) - logits_alone == pytest.approx(
        2 * (features_too - logits_alone), rel=1e-4
    )


def test_features_of_a_model_without_residual_sums_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(TrainingError, match="--distill-features"):
        feature_names(prepare(model, (3, 8, 8), Scheme()))
