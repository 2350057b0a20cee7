"""A waterfall in, tables of its stages and layers and the sentence that tells where the loss is out."""

from __future__ import annotations

import math

from pipeline.metrics.paired import PairedDrop
from pipeline.metrics.waterfall import StepRecord
from pipeline.records.waterfall import Explanation, WaterfallRecord, WaterfallStage
from pipeline.report import stage_names
from pipeline.report import values as v
from pipeline.report.tables.printed import print_tables
from pipeline.report.tables.table import Table
from pipeline.report.values import Value

MOST = 10  # layers of a table in the terminal; the report has all
STAGE_NOTE = (
    "Top-1 with 95% Wilson interval. Change, drop, SQNR and KL are to the stage in brackets that this one is made "
    "from: images lost and gained; drop with 95% paired bootstrap interval; exact two-sided McNemar p; the smallest "
    "drop that so many images find with 80% power. Same class: as the first stage."
)


def show_waterfall(record: WaterfallRecord) -> None:
    """Print on stdout."""
    from rich.console import Console

    print_tables(tables(record))
    console = Console()
    for line in attribution(record):
        console.print(line, markup=False, highlight=False)


def tables(record: WaterfallRecord) -> tuple[Table, ...]:
    """The stages, and the layers if there is an explanation."""
    layers = () if record.explanation is None else layer_tables(record.explanation)
    return stage_table(record), *layers


def stage_table(record: WaterfallRecord) -> Table:
    """One row for each stage."""
    return Table(
        title=f"Waterfall: the same {record.n} images at every stage",
        header=("Stage", "Top-1", "Change", "Drop", "p", "Detectable", "SQNR", "KL, nats", "Same class"),
        rows=tuple(_row(record, stage) for stage in record.stages),
        notes=(STAGE_NOTE,),
    )


def layer_tables(explanation: Explanation) -> tuple[Table, ...]:
    """The layers that rounding hurts most, and those that would buy back most in float."""
    if not explanation.layers:
        return ()
    runtimes = tuple(dict.fromkeys(name for layer in explanation.layers for name in layer.runtimes_db))
    worst = Table(
        title=f"Worst {min(MOST, len(explanation.layers))} of {len(explanation.layers)} int8 layers",
        header=("Layer", "Alone", "In the chain", *runtimes),
        rows=tuple(
            (
                v.words(layer.name),
                _decibels(layer.alone_db),
                _decibels(layer.chained_db),
                *(
                    _decibels(layer.runtimes_db[name]) if name in layer.runtimes_db else v.NOT_MEASURED
                    for name in runtimes
                ),
            )
            for layer in explanation.layers[:MOST]
        ),
        notes=(
            f"SQNR of the layer's output over {explanation.images} images. Alone: only this layer is rounded, compared "
            "with nothing rounded. In the chain: all layers are. Runtimes: the same tensor in the artifact, compared "
            "with the QDQ program.",
            *explanation.notes,
        ),
    )
    n = explanation.images
    kept = Table(
        title=f"Best {min(MOST, len(explanation.kept_float))} layers to keep in float, one at a time",
        header=("Layer", "KL, nats", "Bought back", "Top-1"),
        rows=(
            (v.words("none (QDQ program)"), _nats(explanation.kl_mean), v.NONE_HERE, _top1(explanation.qdq_top1, n)),
            *(
                (v.words(k.name), _nats(k.kl_mean), _bought(explanation.kl_mean, k.kl_mean), _top1(k.top1, n))
                for k in explanation.kept_float[:MOST]
            ),
            (
                v.words("all (trained)"),
                _nats(0.0),
                _bought(explanation.kl_mean, 0.0),
                _top1(explanation.trained_top1, n),
            ),
        ),
        notes=(f"Mean KL divergence to the trained stage, where nothing is rounded, over {n} images.",),
    )
    return worst, kept


def attribution(record: WaterfallRecord) -> tuple[str, ...]:
    """For each artifact, its drop against the first stage as the sum of its steps, in percentage points."""
    lines = []
    for stage in record.stages:
        if stage.cell is None or stage.to_first is None:
            continue
        steps = [
            f"{stage_names.label(s, ' ') if s.cell is None else 'the runtime'} {_pp(s.to_previous.change)}"
            for s in record.chain(stage.name)
            if s.to_previous is not None
        ]
        first = stage_names.label(record.stages[0], " ")
        total = stage.to_first.change
        lines.append(f"{stage.name}: drop against {first} {_pp(total)} pp of {total.n} images = {' + '.join(steps)}")
    return tuple(lines)


def _row(record: WaterfallRecord, stage: WaterfallStage) -> tuple[Value, ...]:
    name = stage_names.TORCH_LABELS[stage.name] if stage.cell is None else stage.name
    step = stage.to_previous
    if step is None or stage.previous is None or stage.to_first is None:
        return v.words(name), v.top1(stage.accuracy), *[v.NONE_HERE] * 7
    change = step.change
    low, high = change.interval_pp()
    detectable = change.detectable_pp()
    return (
        v.words(f"{name}\n({stage_names.label(record.stage(stage.previous), ' ')})"),
        v.top1(stage.accuracy),
        Value(f"−{change.lost}\n+{change.gained}", sort=change.lost + change.gained),
        Value(f"{_pp(change)} pp\n{v.signed(low, 2)} to {v.signed(high, 2)}", sort=change.drop_pp),
        Value(v.p_text(change.p_value), sort=change.p_value),
        v.NOT_MEASURED if detectable is None else Value(f"{detectable:.2f} pp", sort=detectable),
        v.sqnr(step.drift),
        _kl(step),
        v.same_class(stage.to_first.drift),
    )


def _kl(step: StepRecord) -> Value:
    if step.kl_mean is None or step.kl_max is None:
        return v.NOT_MEASURED
    return Value(f"{step.kl_mean:.2g}\nmax {step.kl_max:.2g}", sort=step.kl_mean)


def _pp(change: PairedDrop) -> str:
    """With a sign that 0 has not: "0.29", "−0.59", "0.00"."""
    return f"{change.drop_pp:.2f}".replace("-", "−")


def _decibels(db: float | None) -> Value:
    return Value("exact") if db is None else Value(f"{db:.1f} dB", sort=db)


def _nats(kl: float) -> Value:
    return Value(f"{kl:.2g}", sort=kl)


def _bought(before: float, after: float) -> Value:
    """Share of the divergence that is gone."""
    return v.NONE_HERE if before <= 0 or not math.isfinite(after) else Value(f"{100 * (1 - after / before):.0f}%")


def _top1(right: int, n: int) -> Value:
    return Value(f"{right} of {n}")
