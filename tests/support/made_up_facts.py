"""Facts of a run for tests: no model and no image stands behind them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models.build import ModelConfig
from pipeline.models.weights import LoadedWeights
from pipeline.models.zoo import is_t2t
from pipeline.records.report import DataRecord
from pipeline.run.facts import QuantizationFacts, SubjectFacts, write_facts
from pipeline.run.folder import Run
from pipeline.run.layout import QUANTIZATION, SUBJECT

DIGITS = tuple(map(str, range(10)))
MEAN_OF_NOTHING = (0.5, 0.5, 0.5)


def write_made_up_facts(
    run: Run,
    classes: Sequence[str] = DIGITS,
    train_digest: str | None = None,
    val_digest: str = "cd" * 32,
    weights_sha256: str = "ef" * 32,
    n_val: int = 100,
    epochs: int = 5,
) -> None:
    """subject.json and quantization.json of a run that was trained for `epochs`, listed in the manifest."""
    config = ModelConfig(
        run.model, len(classes), (3, 96, 96), MEAN_OF_NOTHING, MEAN_OF_NOTHING, 0.9, "bicubic",
        qk_scale=0.0625 if is_t2t(run.model) else None,
    )  # fmt: skip
    weights = LoadedWeights("demo", weights_sha256, "plain", False, False, config.qk_scale)
    data = DataRecord("digits", 10, n_val, train_digest, val_digest)
    write_facts(run, SUBJECT, SubjectFacts(config, 4_000_000, tuple(classes), data, weights))
    write_facts(run, QUANTIZATION, QuantizationFacts({"name": "w8a8"}, training={"qat": {"epochs": epochs}}))
    run.record(SUBJECT, QUANTIZATION)
