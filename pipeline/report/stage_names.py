"""A stage of the waterfall in, what a plot or a matrix calls it out."""

from __future__ import annotations

from pipeline.records.waterfall import WaterfallRecord, WaterfallStage
from pipeline.report.cells import variant_name

TORCH_LABELS = {
    "official": "official",
    "deploy": "deploy form",
    "trained": "trained",
    "fake_quant": "fake-quant",
    "qdq": "QDQ",
}


def place(stage: WaterfallStage) -> str:
    """Of a torch stage its name, of an artifact its runtime: "QDQ", "litert", "mil-fp16 (simulated)"."""
    if stage.cell is None:
        return TORCH_LABELS[stage.name]
    return f"{stage.cell.runtime} (simulated)" if stage.cell.simulated else stage.cell.runtime


def variant(stage: WaterfallStage) -> str:
    """Of an artifact "int8 qat", of a torch stage nothing."""
    return "" if stage.cell is None else variant_name(stage.cell.precision, stage.cell.source)


def label(stage: WaterfallStage, separator: str = "\n") -> str:
    return separator.join(filter(None, (place(stage), variant(stage))))


def class_name(record: WaterfallRecord, label: int | None) -> str:
    """By its number; a top class of None has a NaN among its logits."""
    if label is None:
        return "no class (NaN)"
    return record.class_names[label] if label < len(record.class_names) else f"class {label}"


def brief(text: str, limit: int) -> str:
    """At most `limit` characters, the end cut off with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
