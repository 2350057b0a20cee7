"""Made-up runs and baselines for tests of the gate: every figure in here is invented, none was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.gate.baseline import (
    SCHEMA_VERSION,
    CellFacts,
    FileFacts,
    ImagesRecord,
    Instructions,
    RunFacts,
    Scored,
    Timing,
)
from pipeline.metrics.accuracy import Accuracy
from pipeline.records.keys import OK, CellKey, Outcome
from pipeline.records.report import WeightsRecord

N = 2000
IMAGES = "ab" * 32
KEY = CellKey("t2t_vit_7", "tflite", "litert", "int8", "qat", "host")
HOST = {"processor": "made up", "vector_extensions": "avx2"}


def flags(wrong: int, gained: int = 0, n: int = N, base_wrong: int = 200) -> np.ndarray:
    """[n] with the last `base_wrong` False; `wrong` more of the others, and `gained` of them not."""
    right = np.ones(n, bool)
    right[n - base_wrong :] = False
    right[:wrong] = False
    right[n - base_wrong : n - base_wrong + gained] = True
    return right


def scored(
    lost: int = 0,
    gained: int = 0,
    disagree: int = 0,
    n: int = N,
    images: str = IMAGES,
    events: Mapping[str, int] | None = None,
) -> Scored:
    right = flags(lost, gained, n, n // 10)
    agrees = flags(disagree, 0, n, n // 100)
    return Scored.of(images, Accuracy(n, int(right.sum()), None), right, "qdq", agrees, events)


FILE = FileFacts(
    size_bytes=4_500_000,
    undelegated=2,
    partitions=1,
    float_weights=0,
    float_weight_names=(),
    scales_total=255,
    scales_found=255,
    scales_missing=(),
)


def timing(ratio: float = 3.0, over_float: float = 0.6, noise: float = 0.004, seed: int = 0, **changes: Any) -> Timing:
    """20 rounds in 5 processes, with a spread of `noise` around the ratios."""
    spread = 1 + noise * np.random.default_rng(seed).standard_normal((2, 20))
    rounds = [tuple(float(r) for r in row) for row in spread * [[ratio], [over_float]]]
    return replace(Timing(1, 5, rounds[0], rounds[1], HOST, "cpu"), **changes)


CELL = CellFacts(KEY, OK, scored(), FILE, timing(), Instructions(1_000_000, "made up"), peak_bytes=20_000_000)


def cell(base: CellFacts = CELL, **changes: Any) -> CellFacts:
    """`base` with some fields changed; those of `file` as a dict."""
    if isinstance(changes.get("file"), dict):
        changes["file"] = replace(base.file, **changes["file"])  # type: ignore[type-var]
    return replace(base, **changes)


def not_run(status: str = "failed", reason: str = "no kernel for aten.foo") -> CellFacts:
    """The same cell without answers."""
    outcome = Outcome(status, "load" if status == "failed" else None, reason)  # type: ignore[arg-type]
    return CellFacts(KEY, outcome, None, None, None)


def run_facts(*cells: CellFacts, run_id: str = "20260101-120000-t2t_vit_7", **changes: Any) -> RunFacts:
    facts = RunFacts(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        written_utc="2026-01-01T12:00:00+00:00",
        model="t2t_vit_7",
        num_classes=10,
        images=ImagesRecord("digits", N, "cd" * 32),
        weights=WeightsRecord("demo", "ef" * 32),
        scheme={"name": "w8a8"},
        host={"system": "Linux x86_64", **HOST},
        versions={"torch": "2.13.0"},
        cells=cells,
    )
    return replace(facts, **changes)
