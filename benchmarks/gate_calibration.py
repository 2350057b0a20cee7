"""How often the gate is wrong: false alarms without a change, and injected drops and slowdowns that it finds.

    python benchmarks/gate_calibration.py [--run RUN] [--repeats 24] [--checks 200] [--json FILE]

Accuracy needs the logits of a finished run with a validated int8 file (default: one is made on the embedded digits, in
some minutes). Latency is measured here: `--repeats` whole benchmarks of each runtime, fresh processes and all, on files
with random weights at 96 px. `--samples FILE` keeps the raw samples, and takes them from there if the file exists;
`--files FOLDER` keeps the converted files likewise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import gate_accuracy  # noqa: E402
import gate_latency  # noqa: E402

from pipeline.config import TimingPlan  # noqa: E402
from pipeline.files import write_json  # noqa: E402
from pipeline.run import provenance  # noqa: E402
from pipeline.run.folder import Run, find_run  # noqa: E402

SIDE = 96
VERDICTS = ("pass", "inconclusive", "regressed")


def demo_run(folder: Path) -> Run:
    """t2t_vit_7 with the bundled weights on the digits, int8 for TFLite, all 360 images validated."""
    for command in (
        f"quantize t2t_vit_7 --weights demo --img-size {SIDE} --max-steps 6",
        "convert --target tflite",
        "validate --target tflite",
    ):
        subprocess.run([sys.executable, ROOT / "main.py", *command.split(), "--runs-dir", folder], check=True, cwd=ROOT)
    return find_run(folder, None)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""])


def shares(counts: dict[str, int]) -> list[str]:
    """Percent of each verdict."""
    total = sum(counts.values())
    return [f"{100 * counts.get(verdict, 0) / total:.1f}" for verdict in VERDICTS]


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    header = ("images", "cells", "noise", "injected drop", "images that changed, %")
    header += tuple(f"whole check: {v}, %" for v in VERDICTS) + tuple(f"rule drop: {v}, %" for v in VERDICTS)
    return table(
        header,
        [
            (
                *(r["images"], r["cells"], f"{r['noise']:g}×", f"{r['drop_pp']:g} pp", f"{r['changed_percent']:.2f}"),
                *shares(r["check"]),
                *shares(r["drop_rule"]),
            )
            for r in rows
        ],
    )


def latency_table(rows: list[dict[str, Any]]) -> str:
    header = ("runtime", "cells in turn", "clock", "slowdown", "repeats", "pairs", *(f"{v}, %" for v in VERDICTS))
    return table(
        header,
        [
            (
                *(
                    r["runtime"],
                    r["cells_in_turn"],
                    r["clock"],
                    f"{100 * (r['slowdown'] - 1):.0f}%",
                    r["repeats"],
                    r["pairs"],
                ),
                *shares(r["verdicts"]),
            )
            for r in rows
        ],
    )


def spread_table(rows: list[dict[str, Any]]) -> str:
    words = ("runtime", "cells_in_turn", "clock")
    header = ("runtime", "cells in turn", "clock", "ratio")
    header += ("rounds of a process, %", "processes, %", "repeats, %", "expected of repeats, %")
    keys = ("rounds_percent", "processes_percent", "repeats_percent", "repeats_expected_percent")
    return table(
        header, [(*(r[w] for w in words), f"{r['ratio']:.3f}", *(f"{r[key]:.2f}" for key in keys)) for r in rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run with a validated int8 file; default: made here")
    parser.add_argument("--repeats", type=int, default=24, help="whole benchmarks of each runtime")
    parser.add_argument("--checks", type=int, default=200, help="repeats of each case of accuracy")
    parser.add_argument("--only", choices=("accuracy", "latency"), help="one half alone")
    parser.add_argument("--samples", type=Path, help="JSON of raw samples: written, or read where it exists")
    parser.add_argument("--files", type=Path, help="folder of the converted files: filled, or taken from")
    parser.add_argument("--json", type=Path, help="file for every count")
    arguments = parser.parse_args()
    if arguments.repeats < 2 or arguments.checks < 1:
        parser.error("give at least --repeats 2 and --checks 1")
    report: dict[str, Any] = {"provenance": (facts := provenance.collect())}
    with tempfile.TemporaryDirectory(prefix="edge-t2t-gate-") as name:
        scratch = Path(name)
        run = find_run(Path("runs"), arguments.run) if arguments.run else demo_run(scratch / "runs")
        source = gate_accuracy.source_of(run)
        report |= {"cell": source.cell.key.label, "images": len(source.labels), "noise_rms": source.noise}
        if arguments.only != "latency":
            start = time.monotonic()
            report["accuracy"] = gate_accuracy.calibrate(source, arguments.checks)
            print(accuracy_table(report["accuracy"]))
            print(
                f"{source.cell.key.label}, {len(source.labels)} images, noise {source.noise:.4f} root mean square; "
                f"{(time.monotonic() - start) / 60:.0f} minutes\n"
            )
        if arguments.only != "accuracy":
            kept = arguments.samples or scratch / "samples.json"
            if not kept.is_file():
                (folder := arguments.files or scratch / "files").mkdir(parents=True, exist_ok=True)
                gate_latency.measure(gate_latency.files(folder, SIDE), SIDE, arguments.repeats, TimingPlan(), kept)
            measured, processes = gate_latency.read(kept)
            loads = [p.load for p in measured if p.load is not None]
            report |= {
                "processes": processes,
                "measured_seconds": sum(p.seconds for p in measured),
                "loads": loads,
                "spread": gate_latency.spread(measured, processes),
                "latency": gate_latency.calibrate(source, measured, processes),
            }
            print(spread_table(report["spread"]))
            print(latency_table(report["latency"]))
            print(
                f"measured in {report['measured_seconds'] / 60:.0f} minutes, load {min(loads, default=0):.1f} to "
                f"{max(loads, default=0):.1f} on {facts['cores']} cores\n"
            )
    told = ", ".join(f"{k} {facts[k]}" for k in ("processor", "vector_extensions", "executorch", "ai-edge-litert"))
    print(f"{told}; commit {facts['commit']}")
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
