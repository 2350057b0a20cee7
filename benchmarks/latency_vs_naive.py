"""Latency of T2T-ViT as published and in deploy form, in units of MobileNetV2's; JSON and a Markdown table out.

    python benchmarks/latency_vs_naive.py [--models t2t_vit_7 ...] [--rounds 15] [--out benchmarks/results]

For each runtime and number of threads one process has all files open, fp32 and int8: the official ("naive") form of the
first model, the deploy form of each, MobileNetV2, and four large matrix products that tell what the machine can do (the
floor of a model is its own products at that rate). They take turns, so ratios hold on a noisy machine; milliseconds are
this machine's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

from converted import (  # noqa: E402
    CONTROL,
    PRECISIONS,
    RUNTIME_OF,
    RUNTIMES,
    LargeProducts,
    Subject,
    convert_all,
    zoo,
)
from timed import take_turns  # noqa: E402

from pipeline.files import write_atomic, write_json  # noqa: E402
from pipeline.metrics.latency import ratio_of, round_ratios, summarize  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.run import provenance  # noqa: E402

GEMM = "matrix products"
NAME = "latency_vs_naive.local"


def subjects_of(models: list[str]) -> list[Subject]:
    naive = Subject(f"{models[0]} official", zoo(models[0], "official"))
    deploy = [Subject(f"{model} deploy", zoo(model)) for model in models]
    return [naive, *deploy, Subject(CONTROL, zoo(CONTROL)), Subject(GEMM, LargeProducts(), LargeProducts.SHAPE)]


def measure(
    subjects: list[Subject], folder: Path, threads: list[int], rounds: int, samples: int
) -> list[dict[str, Any]]:
    files = convert_all(subjects, folder)
    macs = {s.name: s.macs for s in subjects}
    rows = []
    with progress("timing", len(RUNTIMES) * len(threads) * rounds, "rounds") as bar:
        for runtime in RUNTIMES:
            opened = {(s.name, p): (files[s.name, runtime, p].path, s.shape) for s in subjects for p in PRECISIONS}
            for count in threads:
                times = take_turns(opened, runtime, RUNTIME_OF[runtime], count, rounds, samples, bar.advance)
                for (name, precision), rounds_ms in times.items():
                    facts = files[name, runtime, precision].facts
                    rows.append(
                        {
                            "model": name,
                            "runtime": RUNTIME_OF[runtime],
                            "precision": precision,
                            "threads": count,
                            "macs": macs[name],
                            "size_bytes": facts.size_bytes,
                            "partitions": facts.partitions,
                            "outside": sum((facts.fallback or {}).values()),
                            "int8_weights": facts.int8_weights,
                            "float_weights": facts.float_weights,
                            "rounds_ms": rounds_ms,
                        }
                    )
    return rows


class Table:
    """What the rows say about each other."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows
        self.by_key = {self.key(r): r for r in rows}

    @staticmethod
    def key(row: dict[str, Any], **other: Any) -> tuple[Any, ...]:
        return tuple({**row, **other}[name] for name in ("model", "runtime", "precision", "threads"))

    def beside(self, row: dict[str, Any], **other: Any) -> str:
        """Ratio of this row's time to that of the row that differs by `other`, with its interval."""
        control = self.by_key.get(self.key(row, **other))
        if control is None or control is row:
            return ""
        r = ratio_of(round_ratios(row["rounds_ms"], control["rounds_ms"]))
        return f"{r.ratio:.2f} ({r.low:.2f}–{r.high:.2f})" if r.low is not None else f"{r.ratio:.2f}"

    def over_floor(self, row: dict[str, Any]) -> str:
        """Time over that of as many products at the rate of the large ones, round by round."""
        gemm = self.by_key[self.key(row, model=GEMM)]
        scale = row["macs"] / gemm["macs"]
        floor = [[ms * scale for ms in samples] for samples in gemm["rounds_ms"]]
        return f"{ratio_of(round_ratios(row['rounds_ms'], floor)).ratio:.2f}"

    def markdown(self) -> str:
        columns = (
            *("model", "runtime", "precision", "threads", "× MobileNetV2 (95 %)", "× own fp32 (95 %)", "× floor"),
            *("median ms", "GMAC/s", "MB", "partitions", "operators outside"),
        )
        lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for row in self.rows:
            median_ms = summarize([ms for samples in row["rounds_ms"] for ms in samples]).median_ms
            cells = (
                *(row[name] for name in ("model", "runtime", "precision", "threads")),
                "" if row["model"] == GEMM else self.beside(row, model=CONTROL) or "1 (control)",
                self.beside(row, precision="fp32"),
                self.over_floor(row),
                f"{median_ms:.2f}",
                f"{row['macs'] / median_ms / 1e6:.0f}",
                f"{row['size_bytes'] / 1e6:.2f}",
                row["partitions"],
                row["outside"],
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
        return "\n".join([*lines, "", *self._naive(), ""])

    def _naive(self) -> list[str]:
        """Naive over deploy, of the model that has both."""
        lines = []
        for row in self.rows:
            model, _, form = row["model"].partition(" ")
            if form == "official":
                where = f"{row['runtime']}, {row['precision']}, {row['threads']} thread(s)"
                lines.append(f"- {model}, official / deploy, {where}: {self.beside(row, model=f'{model} deploy')}")
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["t2t_vit_7", "t2t_vit_10", "t2t_vit_12"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-t2t-bench-") as folder:
        subjects = subjects_of(arguments.models)
        rows = measure(subjects, Path(folder), arguments.threads, arguments.rounds, arguments.samples)
    source = provenance.collect()
    write_json(
        arguments.out / f"{NAME}.json",
        {"provenance": source, "rounds": arguments.rounds, "samples": arguments.samples, "rows": rows},
    )
    told = ", ".join(f"{k} {source[k]}" for k in ("processor", "vector_extensions", "executorch", "ai-edge-litert"))
    text = f"{Table(rows).markdown()}\n{told}; commit {source['commit']}\n"
    write_atomic(arguments.out / f"{NAME}.md", text)
    print(text)


if __name__ == "__main__":
    main()
