"""A made-up waterfall for tests of the report: logits are drawn at random, then counted by the real metrics."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
from made_up_report import made_up_report

from pipeline.metrics.accuracy import accuracy, per_class
from pipeline.metrics.drift import agreement_matrix, most_moved, step
from pipeline.records.keys import SIMULATED, CellKey, Source
from pipeline.records.report import Report
from pipeline.records.waterfall import (
    TORCH_STAGES,
    Explanation,
    FloatLayer,
    ImageRecord,
    LayerRecord,
    WaterfallRecord,
    WaterfallStage,
)
from targets.types import Precision

LAYERS = tuple(f"blocks.{i}.{part}" for i in range(7) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))


def made_up_cells(model: str) -> dict[str, CellKey]:
    """By label: int8 in every runtime, Core ML simulated, and one float file."""
    places: tuple[tuple[str, str, Precision, Source, str], ...] = (
        ("executorch", "executorch", "int8", "qat", "host"),
        ("tflite", "litert", "int8", "qat", "host"),
        ("tflite", "tensorflow", "int8", "qat", "host"),
        ("tflite", "litert", "fp32", "float", "host"),
        ("coreml", "mil-fp32", "int8", "qat", SIMULATED),
        ("coreml", "mil-fp16", "int8", "qat", SIMULATED),
    )
    keys = [CellKey(model, *place) for place in places]
    return {key.label: key for key in keys}


def made_up_waterfall(model: str = "t2t_vit_10", classes: int = 10, n: int = 360, seed: int = 0) -> WaterfallRecord:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % classes)
    logits = {"official": random.normal(0, 1, (n, classes)) + 3.2 * np.eye(classes)[labels]}
    cells = made_up_cells(model)
    previous = dict(zip(TORCH_STAGES[1:], TORCH_STAGES, strict=False))
    previous |= {name: "qdq" if cell.precision == "int8" else "deploy" for name, cell in cells.items()}
    noise = {"deploy": 0.0, "trained": 0.3, "fake_quant": 0.25, "qdq": 0.0} | dict.fromkeys(cells, 0.08)
    for name, before in previous.items():
        logits[name] = logits[before] + noise[name] * random.normal(0, 1, (n, classes))
    stages = [
        WaterfallStage(
            name=name,
            cell=cells.get(name),
            previous=previous.get(name),
            accuracy=accuracy(values, labels),
            to_previous=step(logits[previous[name]], values, labels) if name in previous else None,
            to_first=step(logits["official"], values, labels) if name in previous else None,
            per_class=per_class(values, labels),
        )
        for name, values in logits.items()
    ]
    moved = most_moved(list(logits.values()), 12)
    images = tuple(
        ImageRecord(
            index=image.row,
            name=f"val/{labels[image.row]}/image-{image.row:04}.jpg",
            label=int(labels[image.row]),
            classes=image.classes,
            kl=image.kl,
            thumbnail=made_up_thumbnail(image.row) if place != 1 else None,
        )
        for place, image in enumerate(moved)
    )
    return WaterfallRecord(
        digest="ab" * 32,
        n=n,
        class_names=tuple(f"class {i}" for i in range(classes)),
        stages=tuple(stages),
        agreement=agreement_matrix(list(logits.values())),
        images=images,
        explanation=made_up_explanation(tuple(cells), random),
    )


def made_up_explanation(cells: tuple[str, ...], random: np.random.Generator) -> Explanation:
    alone = np.sort(random.uniform(22, 48, len(LAYERS)))
    layers = tuple(
        LayerRecord(
            name=name,
            kind="linear",
            alone_db=None if i == len(LAYERS) - 1 else float(db),
            chained_db=float(db - random.uniform(3, 12)),
            runtimes_db={cells[1]: float(random.uniform(40, 60))},
        )
        for i, (name, db) in enumerate(zip(random.permutation(LAYERS).tolist(), alone, strict=True))
    )
    kl = np.sort(random.uniform(0.004, 0.011, len(LAYERS)))
    kept = tuple(FloatLayer(layer.name, float(k), 15) for layer, k in zip(layers, kl, strict=True))
    notes = ("executorch: a delegate shows no intermediate tensors",)
    return Explanation(16, 14, 15, 0.0102, layers, kept, notes)


def made_up_thumbnail(seed: int) -> str:
    from PIL import Image

    grid = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grid).resize((96, 96)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def made_up_explained_report(**options: Any) -> Report:
    """The made-up report, its first run with a waterfall."""
    report = made_up_report()
    run = replace(report.runs[0], waterfall=made_up_waterfall(report.runs[0].model, **options))
    return replace(report, runs=(run, *report.runs[1:]))
