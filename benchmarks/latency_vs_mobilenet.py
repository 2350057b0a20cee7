"""Models in; their latency in units of MobileNetV2's, by runtime, precision and threads, as JSON and Markdown, out.

    python benchmarks/latency_vs_mobilenet.py [--models t2t_vit_7 ...] [--rounds 15] [--out benchmarks/results]

Every model is calibrated on the embedded digits, converted, and timed in turns with MobileNetV2's artifact of the same
runtime and precision, both open in one process: ratios hold on a noisy machine, milliseconds are this machine's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import provenance  # noqa: E402
from pipeline.commands.options import say  # noqa: E402
from pipeline.config import RunConfig  # noqa: E402
from pipeline.metrics.latency import ratio, summarize  # noqa: E402
from pipeline.quiet import quiet_sdks  # noqa: E402
from pipeline.reports.records import LatencyRecord  # noqa: E402
from pipeline.rundir import Run, write_atomic, write_json  # noqa: E402

TARGETS = ("executorch", "tflite")
CONTROL = "mobilenet_v2"


def make(model: str, root: Path) -> Run:
    """A calibrated run with fp32 and int8 artifacts for both targets."""
    from pipeline.commands.quantize_run import default_weights
    from pipeline.qat.finetune import quantize, start
    from pipeline.stages.convert import convert_cells, plan_cells

    weights = default_weights(model) if default_weights(model) == "demo" else "none"
    config = RunConfig(model=model, weights=weights, epochs=0, limit_val=1)
    run, subject = start(config, root)
    quantize(run, config, subject, say)
    for record in convert_cells(run, plan_cells(TARGETS, ["fp32", "int8"], from_float=False, say=say), say):
        if record.outcome.status != "ok":
            raise SystemExit(f"{model} {record.target} {record.precision}: {record.outcome.reason}")
    return run


def row(record: LatencyRecord, size_bytes: int, partitions: int | None, outside: int) -> dict[str, Any]:
    if record.rounds_ms is None:
        raise SystemExit(f"{record.key}: {record.outcome.reason}")
    median_ms = summarize([ms for samples in record.rounds_ms for ms in samples]).median_ms
    beside = ratio(record.rounds_ms, record.control_rounds_ms) if record.control_rounds_ms else None
    return {
        "model": record.key.model,
        "runtime": record.key.runtime,
        "precision": record.key.precision,
        "threads": record.threads,
        "median_ms": median_ms,
        "ratio": beside.ratio if beside else None,
        "ratio_low": beside.low if beside else None,
        "ratio_high": beside.high if beside else None,
        "size_bytes": size_bytes,
        "partitions": partitions,
        "outside": outside,
        "rounds_ms": record.rounds_ms,
        "control_rounds_ms": record.control_rounds_ms,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    columns = [
        "model",
        "runtime",
        "precision",
        "threads",
        "x MobileNetV2",
        "95 % interval",
        "median ms",
        "MB",
        "partitions",
        "outside",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for r in rows:
        times = "1 (control)" if r["ratio"] is None else f"{r['ratio']:.2f}"
        interval = "" if r["ratio_low"] is None else f"{r['ratio_low']:.2f}-{r['ratio_high']:.2f}"
        cells = (
            *(r[name] for name in ("model", "runtime", "precision", "threads")),
            times,
            interval,
            f"{r['median_ms']:.2f}",
            f"{r['size_bytes'] / 1e6:.2f}",
            r["partitions"],
            r["outside"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["t2t_vit_7", "t2t_vit_10", "t2t_vit_12"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    quiet_sdks()
    from pipeline.stages.artifacts import load_conversions
    from pipeline.stages.benchmark import TimingPlan, benchmark_run

    rows = []
    with tempfile.TemporaryDirectory(prefix="edge-t2t-bench-") as folder:
        control = make(CONTROL, Path(folder))
        for model in [*arguments.models, CONTROL]:
            run = control if model == CONTROL else make(model, Path(folder))
            facts = {(c.target, c.precision): c.facts for c in load_conversions(run)}
            for threads in arguments.threads:
                plan = TimingPlan(threads=threads, rounds=arguments.rounds, samples=arguments.samples)
                for record in benchmark_run(run, control, TARGETS, plan, say):
                    fact = facts[record.key.target, record.key.precision]
                    assert fact is not None
                    rows.append(row(record, fact.size_bytes, fact.partitions, sum((fact.fallback or {}).values())))
    result = {
        "provenance": provenance.collect(),
        "rounds": arguments.rounds,
        "samples": arguments.samples,
        "rows": rows,
    }
    write_json(arguments.out / "latency_vs_mobilenet.local.json", result)
    write_atomic(arguments.out / "latency_vs_mobilenet.local.md", markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
