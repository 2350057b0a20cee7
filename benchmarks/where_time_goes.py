"""Where the time of a T2T-ViT goes, part by part, in its official and its deploy form; JSON and a Markdown table out.

    python benchmarks/where_time_goes.py [--model t2t_vit_7] [--rounds 15] [--out benchmarks/results]

The runtimes' wheels carry no profiler of single operators, so the model is cut: a program that ends after part k is
timed in turns with the one that ends after part k - 1, in the same process; part k is the median of the differences.
(Kernel by kernel: `perf record` on any of these files; LiteRT's wheel has the names of XNNPACK's kernels.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import numpy as np  # noqa: E402
from converted import PRECISIONS, RUNTIME_OF, RUNTIMES, Precision, Subject, convert_all, zoo  # noqa: E402
from timed import take_turns  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pipeline.files import write_atomic, write_json  # noqa: E402
from pipeline.progress import progress  # noqa: E402
from pipeline.rewrites.deploy import ORDER, deploy_form  # noqa: E402
from pipeline.rewrites.form import DeployForm  # noqa: E402
from pipeline.run import provenance  # noqa: E402

NAME = "where_time_goes.local"
FORMS = ("official", "deploy")
PARTS = (
    "first split, norm, k q v",
    "first Performer",
    "first MLP",
    "second split, Performer, MLP",
    "third split, projection, positions",
    "blocks but the last",
    "last block, head",
)


class Cut(nn.Module):
    """The model up to one of PARTS; the result as one row, [B, 3, H, W] -> [B, values]."""

    def __init__(self, form: DeployForm, parts: int):
        super().__init__()
        self.form, self.parts = form, parts

    def forward(self, x: Tensor) -> Tensor:
        for number, result in enumerate(self._results(x), start=1):
            if number == self.parts:
                return result.flatten(1)
        raise ValueError(f"there are {len(PARTS)} parts, not {self.parts}")

    def _results(self, x: Tensor) -> Iterator[Tensor]:
        form = self.form
        k, q, v = form.stage1.kqv(x)
        yield k + q + v  # one output, whatever the runtime makes of three
        x = form.stage1.attend(k, q, v)
        yield x
        x = form.stage1.mlp(x)
        yield x
        x = form.stage2(x)
        yield x
        x = form.embed(x)
        yield x
        for block in form.blocks[:-1]:
            x = block(x)
        yield x
        yield form.readout(form.blocks[-1](x))


def measure(
    model: str, precisions: list[Precision], folder: Path, threads: int, rounds: int, samples: int
) -> list[dict[str, Any]]:
    """One row for each form, runtime, precision and part, with the differences of its rounds."""
    rows = []
    for form in FORMS:
        # The official form in the same slots: no rewrite has filled them.
        whole = deploy_form(zoo(model, "official"), rewrites=0 if form == "official" else len(ORDER))
        subjects = [Subject(f"{form} {n}", Cut(whole, n)) for n in range(1, len(PARTS) + 1)]
        files = convert_all(subjects, folder, precisions=precisions)
        with progress(f"timing the {form} form", len(RUNTIMES) * len(precisions) * rounds, "rounds") as bar:
            for runtime in RUNTIMES:
                for precision in precisions:
                    opened = {s.name: (files[s.name, runtime, precision].path, s.shape) for s in subjects}
                    times = take_turns(opened, runtime, RUNTIME_OF[runtime], threads, rounds, samples, bar.advance)
                    medians = np.array([[np.median(r) for r in times[s.name]] for s in subjects])  # [parts, rounds]
                    parts_ms = np.diff(medians, axis=0, prepend=0)
                    rows += [
                        {
                            "form": form,
                            "runtime": RUNTIME_OF[runtime],
                            "precision": precision,
                            "threads": threads,
                            "part": part,
                            "rounds_ms": part_ms.tolist(),
                        }
                        for part, part_ms in zip(PARTS, parts_ms, strict=True)
                    ]
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Parts as rows; official and deploy of each runtime and precision as columns: median ms and share of the sum."""
    columns = list(dict.fromkeys((r["runtime"], r["precision"], r["form"]) for r in rows))
    median = {(r["runtime"], r["precision"], r["form"], r["part"]): float(np.median(r["rounds_ms"])) for r in rows}
    lines = [
        f"| part, ms (share) | {' | '.join(f'{r} {p} {f}' for r, p, f in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    total = {c: sum(median[(*c, part)] for part in PARTS) for c in columns}
    for part in PARTS:
        cells = (f"{median[(*c, part)]:.2f} ({median[(*c, part)] / total[c]:.0%})" for c in columns)
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append(f"| sum | {' | '.join(f'{total[c]:.2f}' for c in columns)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="t2t_vit_7")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-t2t-parts-") as folder:
        rows = measure(
            arguments.model,
            arguments.precisions,
            Path(folder),
            arguments.threads,
            arguments.rounds,
            arguments.samples,
        )
    source = provenance.collect()
    write_json(arguments.out / f"{NAME}.json", {"provenance": source, "model": arguments.model, "rows": rows})
    told = f"{arguments.model}, {arguments.threads} thread(s), {source['processor']}, {source['vector_extensions']}"
    text = f"{markdown(rows)}\n{told}; commit {source['commit']}\n"
    write_atomic(arguments.out / f"{NAME}.md", text)
    print(text)


if __name__ == "__main__":
    main()
