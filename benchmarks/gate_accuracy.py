"""Logits of a real run in; how often the gate raises an alarm without a change, and finds an injected drop, out.

A repeat draws n of the run's images with replacement. The cell's logits get noise once for the baseline and once more
for the run of today, of equal size: nothing changed, and images flip both ways. A drop of 2 points makes right answers
wrong, each with the same chance, so that 2% of all images are lost on average. The baseline is written and read back as
JSON, and the verdicts are those of `pipeline.gate.judge`.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import write_atomic
from pipeline.gate.baseline import CellFacts, RunFacts, Scored
from pipeline.gate.collect import baseline_text, facts_of, read_baseline
from pipeline.gate.judge import judge
from pipeline.gate.settings import settings_of
from pipeline.metrics.accuracy import accuracy, agrees, correct
from pipeline.progress import progress
from pipeline.run.folder import Run
from pipeline.run.logits import load_artifact_logits, load_logits

DROP = 0.02
#: Images, cells judged at once, and noise in units of what was measured. The larger noise flips about as many images as
#: a new training does.
CASES = (
    *((n, 1, noise) for n in (360, 2000, 10_000) for noise in (1.0, 10.0)),
    (2000, 3, 10.0),
    (2000, 6, 10.0),
)


@dataclass(frozen=True)
class Source:
    """A real run: what the gate knows of it, one cell's logits, labels, the QDQ program's logits, and the noise.

    Attributes:
        noise: root mean square, over all logits, of the difference of the artifact and the QDQ program: the same
            integers and scales, rounded by other code.
    """

    facts: RunFacts
    cell: CellFacts
    logits: np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    noise: float


def source_of(run: Run) -> Source:
    """The first int8 cell of the run whose logits were kept.

    Raises:
        SystemExit: there is none.
    """
    facts, stages = facts_of(run), load_logits(run)
    for cell in facts.cells:
        kept = load_artifact_logits(run, cell.key)
        if kept is None or cell.scored is None or cell.key.precision != "int8" or cell.key.simulated:
            continue
        position = {int(index): row for row, index in enumerate(stages.indices)}
        rows = [position[int(index)] for index in kept.indices]
        reference = stages.stages["qdq"][rows]
        noise = float(np.sqrt(((kept.logits - reference) ** 2).mean()))
        return Source(facts, cell, kept.logits, stages.labels[rows], reference, noise)
    raise SystemExit(f"run {run.id} has no validated int8 file: convert and validate it first")


def calibrate(source: Source, repeats: int, seed: int = 0) -> list[dict[str, Any]]:
    """One row for each of CASES, without and with a drop."""
    settings, rows = settings_of({}, {}), []
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("gate on accuracy", 2 * len(CASES) * repeats, "checks") as bar,
    ):
        for (n, cells, noise), drop in itertools.product(CASES, (0.0, DROP)):
            random = np.random.default_rng((seed, n, cells, int(noise), int(drop > 0)))
            checks, of_drop, flips = Counter[str](), Counter[str](), []
            for _ in range(repeats):
                base, now, changed = _pair(source, random, n, cells, noise * source.noise, drop)
                write_atomic(path := Path(folder) / "baseline.json", baseline_text(base))
                result = judge(now, read_baseline(path), settings)
                checks[result.verdict or "none"] += 1
                first = next(f for f in result.cells[0].findings if f.rule == "drop")
                of_drop[first.verdict or "none"] += 1
                flips.append(changed / n)
                bar.advance(1)
            rows.append(
                {
                    "images": n,
                    "cells": cells,
                    "noise": noise,
                    "drop_pp": 100 * drop,
                    "repeats": repeats,
                    "changed_percent": 100 * float(np.mean(flips)),
                    "check": dict(checks),
                    "drop_rule": dict(of_drop),
                }
            )
    return rows


def _pair(
    source: Source, random: np.random.Generator, n: int, cells: int, noise: float, drop: float
) -> tuple[RunFacts, RunFacts, int]:
    """Baseline, today, and how many images of the first cell changed between right and wrong."""
    drawn = random.integers(0, len(source.labels), n)
    images = hashlib.sha256(drawn.tobytes()).hexdigest()
    before, after, changed = [], [], 0
    for number in range(cells):
        base, now = (_noisy(source, random, drawn, noise) for _ in range(2))
        if number == 0 and drop:
            now = _damaged(random, now, source.labels[drawn], drop)
        if number == 0:
            labels = source.labels[drawn]
            changed = int((correct(base, labels) != correct(now, labels)).sum())
        for found, logits in ((before, base), (after, now)):
            found.append(_cell(source, number, images, drawn, logits))
    return replace(source.facts, cells=tuple(before)), replace(source.facts, cells=tuple(after)), changed


def _noisy(source: Source, random: np.random.Generator, drawn: np.ndarray, noise: float) -> np.ndarray:
    logits = source.logits[drawn]
    return logits + random.normal(0.0, noise, logits.shape).astype(np.float32)


def _damaged(random: np.random.Generator, logits: np.ndarray, labels: np.ndarray, drop: float) -> np.ndarray:
    """Right answers become wrong, `drop` of all images on average: another class gets the highest logit."""
    right = correct(logits, labels)
    hit = right & (random.random(len(labels)) < drop * len(labels) / right.sum())
    damaged = logits.copy()
    damaged[hit, (labels[hit] + 1) % logits.shape[1]] = logits[hit].max(axis=1) + 1.0
    return damaged


def _cell(source: Source, number: int, images: str, drawn: np.ndarray, logits: np.ndarray) -> CellFacts:
    labels = source.labels[drawn]
    scored = Scored.of(
        images=images,
        accuracy=accuracy(logits, labels),
        right=correct(logits, labels),
        reference="qdq",
        agrees=agrees(source.reference[drawn], logits),
        range_events=None,
    )
    key = replace(source.cell.key, device=f"host {number}")
    return replace(source.cell, key=key, scored=scored, timing=None)
