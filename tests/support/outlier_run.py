"""A run folder with a tiny network in int8 that one outlier channel ruins: two layers must be float to save it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.dataset import DIGITS
from calibration.sources import open_data
from pipeline.config import RunConfig
from pipeline.files import write_json
from pipeline.models.build import ModelConfig
from pipeline.models.weights import LoadedWeights
from pipeline.quantization.calibration import calibrate
from pipeline.quantization.graph import prepare, save_program, to_qdq_program
from pipeline.quantization.quantizer import Scheme
from pipeline.run import layout as files
from pipeline.run.facts import QuantizationFacts, write_facts
from pipeline.run.folder import Run, create_run
from pipeline.run.logits import StageLogits, evenly, save_logits
from pipeline.training.setting import collect_logits
from pipeline.training.subject import ScoredImages, Subject, eval_transform

SIDE = 16
SIZE = (3, SIDE, SIDE)
IMAGES = 72
LAYERS = ("first", "before", "after", "head")
#: The outlier is written by one and read by the other; float alone, each leaves the rounding of the other.
NEEDED = ("after", "before")
OUTLIER = 3e4


class Outlier(nn.Module):
    """ReLU between layers: a channel times K before it, and divided by K after it, changes nothing in float."""

    def __init__(self, outlier: float = OUTLIER) -> None:
        super().__init__()
        self.first = nn.Linear(3 * SIDE * SIDE, 24)
        self.before = nn.Linear(24, 24)
        self.after = nn.Linear(24, 24)
        self.head = nn.Linear(24, 10)
        with torch.no_grad():
            for layer in (self.first, self.before, self.after):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                layer.bias.zero_()
            self.before.weight[3] *= outlier
            self.after.weight[:, 3] /= outlier

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        return torch.relu(self.after(torch.relu(self.before(x))))

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor) -> None:
        """The head by ridge regression, so that answers depend on the image."""
        features = self.features(images)
        design = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
        wanted = 10 * functional.one_hot(labels, 10).double()
        ridge = 1e-4 * torch.eye(design.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(design.T @ design + ridge, design.T @ wanted)  # [25, 10]
        self.head.weight.copy_(solved[:-1].T)
        self.head.bias.copy_(solved[-1])


def outlier_run(root: Path, outlier: float = OUTLIER) -> Run:
    """As `quantize --epochs 0` leaves it, with the float model's own answers as labels."""
    torch.manual_seed(0)
    data = open_data(DIGITS)
    config = ModelConfig("outlier", 10, SIZE, (0.5,) * 3, (0.5,) * 3, 1.0, "bilinear")
    transform = eval_transform(config)
    indices = evenly(len(data.val), IMAGES)

    def logits_of(forward: nn.Module) -> np.ndarray:
        return collect_logits("scoring", forward, ScoredImages(data.val, transform, indices, workers=0))

    chosen = evenly(len(data.train), 256)
    images = torch.stack([transform.build()(data.train.image(i)) for i in chosen])
    model = Outlier(outlier).eval()
    model.fit(images, torch.from_numpy(data.train.labels[list(chosen)]))
    graph = prepare(model, SIZE, Scheme())
    calibrate(graph, [images], len(images), torch.device("cpu"))
    run = create_run(root, "outlier")
    program = to_qdq_program(graph, SIZE)
    save_program(program, run.path / files.QDQ_PROGRAM)
    float_logits = logits_of(model)
    stages = {"float": float_logits, "fake_quant": logits_of(graph), "qdq": logits_of(program.module())}
    digest = f"{data.val.digest()}-{transform.digest()}"
    logits = StageLogits(float_logits.argmax(axis=1), np.asarray(indices), digest, stages)
    save_logits(logits, run.path / files.LOGITS)
    write_json(run.path / files.CONFIG, RunConfig(model="outlier", weights="none").to_dict())
    write_facts(
        run,
        files.SUBJECT,
        Subject(model, config, data, transform, LoadedWeights("none", None, None, False, False, None)).facts(),
    )
    facts = QuantizationFacts({"observer": "moving-average"}, training={"qat": {"epochs": 0}})
    write_facts(run, files.QUANTIZATION, facts)
    run.record(files.QDQ_PROGRAM, files.LOGITS, files.CONFIG, files.SUBJECT, files.QUANTIZATION)
    return run
