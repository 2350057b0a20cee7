"""Made-up records for tests of the report: every figure in here is invented, none was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from pipeline.metrics.accuracy import Accuracy
from pipeline.metrics.drift import Drift
from pipeline.records.conversion import ConversionRecord
from pipeline.records.keys import OK, CellKey, Outcome, Source
from pipeline.records.latency import LatencyRecord, Rounds
from pipeline.records.report import SCHEMA_VERSION, DataRecord, Report, RunRecord, WeightsRecord
from pipeline.records.validation import StageRecord, ValidationRecord
from pipeline.report.page import terminal_tables
from pipeline.report.tables.table import WIDTH, as_text
from targets.codec import from_dict
from targets.types import FactsRecord, Precision, TensorSpec

N = 360
RUNTIMES = {"executorch": ("executorch",), "tflite": ("litert", "tensorflow"), "coreml": ("coreml",)}
MEDIAN_MS = {"executorch": 6.3, "litert": 6.06, "tensorflow": 6.9}
NO_CORE_ML = Outcome("unavailable", "probe", "no Core ML runtime on linux")


def made_up_drift(sqnr_db: float, same: int) -> Drift:
    return Drift(N, sqnr_db, False, 0.9991, 0.9723, 0.61, same, 0)


def made_up_rounds(median_ms: float, seed: int, rounds: int = 10, samples: int = 20) -> Rounds:
    noise = np.random.default_rng(seed).gamma(2.0, 0.02, (rounds, samples))
    return tuple(tuple(round(float(median_ms * (0.97 + x)), 4) for x in row) for row in noise)


def made_up_conversion(model: str, target: str, precision: Precision, source: Source) -> ConversionRecord:
    size = {"fp32": 16_700_000, "fp16": 8_420_000, "int8": 4_610_000}[precision]
    int8 = precision == "int8"
    fallback = {"SOFTMAX": 7, "GELU": 8, "BATCH_MATMUL": 14} if target == "tflite" and int8 else {}
    return ConversionRecord(
        model=model,
        target=target,
        precision=precision,
        source=source,
        outcome=OK,
        path=f"artifacts/{target}-{precision}.bin",
        sha256=f"{len(model + target + precision + source):02x}" * 32,
        seconds=12.34,
        facts=FactsRecord(
            size_bytes=size if model != "mobilenet_v2" else size * 3 // 5,
            inputs=(TensorSpec("images", (1, 3, 224, 224), "float32"),),
            outputs=(TensorSpec("logits", (1, 10), "float32"),),
            operators={"CONV_2D": 52, "FULLY_CONNECTED": 41, **fallback},
            delegated=None if target == "coreml" else 93,
            fallback=None if target == "coreml" else fallback,
            partitions=None if target == "coreml" else 1 + 9 * bool(fallback),
            int8_weights=52 * int8,
            float_weights=0 if int8 else 52,
            float_weight_names=() if int8 else tuple(f"blocks.{i}.weight" for i in range(52)),
        ),
        scales_total=131 if source == "qat" else None,
        scales_found=129 if source == "qat" else None,
        scales_missing=("blocks.6.add", "head.input") if source == "qat" else (),
        load_check=NO_CORE_ML.reason or "" if target == "coreml" else "loaded and ran in a fresh process",
    )


def made_up_run(model: str = "t2t_vit_10", run_id: str = "20260101-120000", slower: float = 3.0) -> RunRecord:
    """Three targets x (fp32, int8 qat), Core ML unavailable, one conversion failed, one cell not benchmarked."""
    variants: tuple[tuple[Precision, Source], ...] = (("fp32", "float"), ("int8", "qat"))
    conversions, validations, latencies = [], [], []
    for seed, (target, (precision, source)) in enumerate((t, v) for v in variants for t in RUNTIMES for t in [t]):
        conversions.append(made_up_conversion(model, target, precision, source))
        for runtime in RUNTIMES[target]:
            key = CellKey(model, target, runtime, precision, source, "host")
            if target == "coreml":
                validations.append(ValidationRecord(key, NO_CORE_ML, None, None, None, None))
                latencies.append(LatencyRecord(key, NO_CORE_ML, 1, (), None, None, None, ""))
                continue
            right = 349 if source == "float" else 346 - seed % 3
            validations.append(
                ValidationRecord(
                    key=key,
                    outcome=OK,
                    accuracy=Accuracy(N, right, 359),
                    drift_float=made_up_drift(120.0 if source == "float" else 24.1 + seed % 3, 356),
                    drift_qdq=None if source == "float" else made_up_drift(38.5, 359),
                    seconds=11.0,
                    load_ms=30.0,
                    peak_bytes=25_400_000 if runtime == "litert" else None,
                )
            )
            if runtime == "tensorflow" and precision == "fp32":
                continue  # not benchmarked
            base = MEDIAN_MS[runtime] / 3 * (2.0 if precision == "fp32" else 1.0)
            control = replace(key, model="mobilenet_v2") if model != "mobilenet_v2" else None
            latencies.append(
                LatencyRecord(
                    key=key,
                    outcome=OK,
                    threads=1,
                    warmup_ms=tuple(base * 2 for _ in range(5)),
                    rounds_ms=made_up_rounds(base * slower, seed),
                    control=control,
                    control_rounds_ms=made_up_rounds(base, seed + 50) if control else None,
                    control_note="" if control else "this is the control",
                )
            )
    failed = Outcome("failed", "convert", "operator aten.foo.default has no\n  lowering: leave it out")
    conversions.append(
        ConversionRecord(model, "tflite", "int8", "ptq", failed, None, None, None, None, None, None, (), "")
    )
    return RunRecord(
        run_id=f"{run_id}-{model}",
        model=model,
        created_utc="2026-01-01T12:00:00+00:00",
        num_classes=10,
        parameters=5_563_000,
        data=DataRecord("digits", 1437, N, "ab" * 32, "cd" * 32),
        weights=WeightsRecord("demo", "ef" * 32),
        scheme={"name": "w8a8", "weights": {"dtype": "int8", "granularity": "per channel"}, "float": ["attn.exp"]},
        calibration={"observer": "moving average min-max", "images": 64, "digest": "12" * 32},
        training={"epochs": 3, "steps": 135, "seed": 0, "device": "cpu", "lr": 5e-5, "frozen_at": None},
        stages=(
            StageRecord("float", Accuracy(N, 350, 360), None),
            StageRecord("fake_quant", Accuracy(N, 348, 360), made_up_drift(25.3, 357)),
            StageRecord("qdq", Accuracy(N, 348, 360), made_up_drift(25.1, 357)),
        ),
        conversions=tuple(conversions),
        validations=tuple(validations),
        latencies=tuple(latencies),
        provenance={"versions": {"torch": "2.13.0", "executorch": "1.4.1"}, "commit": "0" * 40, "cpu": "made up"},
    )


def made_up_report() -> Report:
    """A T2T-ViT with MobileNetV2 as its control."""
    control = made_up_run("mobilenet_v2", slower=1.0)
    return Report(SCHEMA_VERSION, "2026-01-01T12:30:00+00:00", (made_up_run(), control))


def terminal_text(report: Report, width: int = WIDTH) -> str:
    """What the terminal shows of a report."""
    return as_text(terminal_tables(report), width)


def report_of(text: str) -> Report:
    """What report.json says."""
    return from_dict(Report, json.loads(text), "the report")
