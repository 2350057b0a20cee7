"""Tables of where the accuracy goes: stages of the waterfall, the sum of its steps, classes and layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from pipeline.metrics.accuracy import ClassCount, wilson_percent
from pipeline.metrics.drift import StepRecord
from pipeline.metrics.paired import PairedDrop
from pipeline.records.report import RunRecord
from pipeline.records.waterfall import Explanation, LayerRecord, WaterfallRecord, WaterfallStage
from pipeline.report import values as v
from pipeline.report.cells import class_name, stage_label
from pipeline.report.tables.table import Column, Columns, Table, print_tables
from pipeline.report.values import Value

MOST = 10  # layers of a table in the terminal; the report has all
MOST_CLASSES = 20  # of one plot or table: more are not read
STAGE_NOTE = (
    "Top-1 with 95% Wilson interval. Change, drop, SQNR and KL are to the stage in brackets that this one is made "
    "from: images lost and gained; drop with 95% paired bootstrap interval; exact two-sided McNemar p; the smallest "
    "drop that so many images find with 80% power. Same class: as the first stage."
)
EXACT, EXACT_OR_ZERO = Value("exact"), Value("exact or zero", "text")


def show_waterfall(record: WaterfallRecord) -> None:
    """Print on stdout."""
    print_tables([*tables(record), *attribution(record)])


def tables(record: WaterfallRecord) -> tuple[Table, ...]:
    """The stages, and the layers if there is an explanation."""
    layers = () if record.explanation is None else layer_tables(record.explanation)
    return stage_table(record), *layers


def waterfall_of_run(run: RunRecord) -> Table | None:
    """One row for each stage; below it, the drop of each artifact as the sum of its steps."""
    if run.waterfall is None:
        return None
    table = stage_table(run.waterfall)
    notes = (*table.notes, *attribution(run.waterfall))
    return replace(table, title=f"{run.model}: waterfall", notes=notes)


def stage_table(record: WaterfallRecord) -> Table:
    """One row for each stage."""
    title = f"Waterfall: the same {record.n} images at every stage"
    columns: Columns[WaterfallStage] = (
        Column("Stage", lambda stage: _stage(record, stage)),
        Column("Top-1", lambda stage: stage.accuracy, v.top1),
        _step("Change", lambda step: _change(step.change)),
        _step("Drop", lambda step: _drop(step.change)),
        _step("p", lambda step: Value(v.p_text(step.change.p_value), sort=step.change.p_value)),
        _step("Detectable", lambda step: _detectable(step.change)),
        _step("SQNR", lambda step: v.sqnr(step.drift)),
        _step("KL, nats", _kl),
        Column(
            "Same class", lambda stage: v.NONE_HERE if stage.to_first is None else v.same_class(stage.to_first.drift)
        ),
    )
    return Table.of(title, columns, record.stages, notes=(STAGE_NOTE,))


def _step(header: str, of: Callable[[StepRecord], Value]) -> Column[WaterfallStage]:
    """A figure of the step to a stage; the first stage has none."""
    return Column(header, lambda stage: v.NONE_HERE if stage.to_previous is None else of(stage.to_previous))


def _stage(record: WaterfallRecord, stage: WaterfallStage) -> str:
    name = stage_label(stage) if stage.cell is None else stage.name
    return name if stage.previous is None else f"{name}\n({stage_label(record.stage(stage.previous))})"


def _change(change: PairedDrop) -> Value:
    return Value(f"−{change.lost}\n+{change.gained}", sort=change.lost + change.gained)


def _drop(change: PairedDrop) -> Value:
    low, high = change.interval_pp()
    return Value(f"{_pp(change)} pp\n{v.signed(low, 2)} to {v.signed(high, 2)}", sort=change.drop_pp)


def _detectable(change: PairedDrop) -> Value:
    return v.measured(change.detectable_pp(), lambda smallest: Value(f"{smallest:.2f} pp", sort=smallest))


def _kl(step: StepRecord) -> Value:
    if step.kl_mean is None or step.kl_max is None:
        return v.NOT_MEASURED
    return Value(f"{step.kl_mean:.2g}\nmax {step.kl_max:.2g}", sort=step.kl_mean)


def _pp(change: PairedDrop) -> str:
    """With a sign that 0 has not: "0.29", "−0.59", "0.00"."""
    return f"{change.drop_pp:.2f}".replace("-", "−")


def attribution(record: WaterfallRecord) -> tuple[str, ...]:
    """For each artifact, its drop against the first stage as the sum of its steps, in percentage points."""
    lines = []
    first = stage_label(record.stages[0])
    for stage in record.stages:
        if stage.cell is None or stage.to_first is None:
            continue
        steps = [
            f"{stage_label(s) if s.cell is None else 'the runtime'} {_pp(s.to_previous.change)}"
            for s in record.chain(stage.name)
            if s.to_previous is not None
        ]
        total = stage.to_first.change
        lines.append(f"{stage.name}: drop against {first} {_pp(total)} pp of {total.n} images = {' + '.join(steps)}")
    return tuple(lines)


def classes_of_run(run: RunRecord) -> Table | None:
    """None for a run without a waterfall, or without an artifact in it."""
    if run.waterfall is None or all(stage.cell is None for stage in run.waterfall.stages):
        return None
    return class_table(run.model, run.waterfall)


def class_table(model: str, record: WaterfallRecord) -> Table:
    """Drop of each class from the first stage to every artifact; of many classes the worst."""
    first, artifacts = class_counts(record.stages[0]), [stage for stage in record.stages if stage.cell is not None]
    after = [class_counts(stage) for stage in artifacts]
    worst = {label: max(class_drop(count, counts[label]) for counts in after) for label, count in first.items()}
    order = sorted(first, key=lambda label: (-worst[label], label))
    notes = [
        f"Percentage points of the class's images that are right in {stage_label(record.stages[0])} and not "
        "in the artifact, with the artifact's 95% Wilson interval of top-1 in percent. Sorted by the largest drop."
    ]
    if (hidden := len(order) - MOST_CLASSES) > 0:
        notes.append(f"{hidden} of {len(order)} classes, with no larger drop, are not shown; report.json has them.")

    def dropped(stage: WaterfallStage) -> Column[int]:
        counts = class_counts(stage)
        return Column(stage_label(stage), lambda label: _class_drop(first[label], counts[label]))

    columns: Columns[int] = (
        Column("Class", lambda label: class_name(record, label)),
        Column("Images", lambda label: first[label].n, v.count),
        Column("First stage", lambda label: v.share_with_interval(first[label].top1, first[label].n)),
        *map(dropped, artifacts),
    )
    return Table.of(f"{model}: drop by class", columns, order[:MOST_CLASSES], notes=notes)


def class_counts(stage: WaterfallStage) -> dict[int, ClassCount]:
    return {count.label: count for count in stage.per_class}


def class_drop(before: ClassCount, after: ClassCount) -> float:
    """Share of the class's images."""
    return (before.top1 - after.top1) / before.n


def _class_drop(before: ClassCount, after: ClassCount) -> Value:
    low, high = wilson_percent(after.top1, after.n)
    drop = class_drop(before, after)
    return Value(f"{v.signed(100 * drop, 1)} pp\n{low:.0f}–{high:.0f}, n {after.n}", sort=drop)


def layers_of_run(run: RunRecord) -> Table | None:
    """Every int8 layer, worst first; None for a run that was not explained."""
    if run.waterfall is None or run.waterfall.explanation is None:
        return None
    explanation = run.waterfall.explanation
    kept, n = {layer.name: layer for layer in explanation.kept_float}, explanation.images
    columns: Columns[LayerRecord] = (
        Column("Layer", lambda layer: layer.name),
        Column("Kind", lambda layer: layer.kind),
        *_sqnr_columns(explanation, ("SQNR alone", "SQNR chained", "{}, SQNR to QDQ"), EXACT_OR_ZERO),
        Column("KL with it in float", lambda layer: kept.get(layer.name), lambda k: v.nats(k.kl_mean)),
        Column(
            "Top-1 with it in float", lambda layer: kept.get(layer.name), lambda k: v.share(k.top1, explanation.images)
        ),
    )
    note = (
        f"n {n} images. KL divergence in nats to the network without rounding; with all layers in "
        f"int8 it is {explanation.kl_mean:.2g}, with {explanation.qdq_top1} right answers."
    )
    return Table.of(f"{run.model}: layers", columns, explanation.layers, label_columns=2, notes=(note,))


def _sqnr_columns(explanation: Explanation, headers: tuple[str, str, str], exact: Value) -> list[Column[LayerRecord]]:
    """SQNR of a layer alone, in the chain, and in each runtime: {} of its header is the runtime's name."""
    runtimes = dict.fromkeys(name for layer in explanation.layers for name in layer.runtimes_db)
    alone, chained, inside = headers

    def in_runtime(name: str) -> Column[LayerRecord]:
        def sqnr(layer: LayerRecord) -> Value:
            return v.decibels(layer.runtimes_db[name], exact) if name in layer.runtimes_db else v.NOT_MEASURED

        return Column(inside.format(name), sqnr)

    return [
        Column(alone, lambda layer: v.decibels(layer.alone_db, exact)),
        Column(chained, lambda layer: v.decibels(layer.chained_db, exact)),
        *map(in_runtime, runtimes),
    ]


def layer_tables(explanation: Explanation) -> tuple[Table, ...]:
    """The layers that rounding hurts most, and those that would buy back most in float."""
    if not explanation.layers:
        return ()
    worst = Table.of(
        f"Worst {min(MOST, len(explanation.layers))} of {len(explanation.layers)} int8 layers",
        (
            Column[LayerRecord]("Layer", lambda layer: layer.name),
            *_sqnr_columns(explanation, ("Alone", "In the chain", "{}"), EXACT),
        ),
        explanation.layers[:MOST],
        notes=(
            f"SQNR of the layer's output over {explanation.images} images. Alone: only this layer is rounded, compared "
            "with nothing rounded. In the chain: all layers are. Runtimes: the same tensor in the artifact, compared "
            "with the QDQ program.",
            *explanation.notes,
        ),
    )
    n, all_rounded = explanation.images, explanation.kl_mean
    rows = [
        ("none (QDQ program)", all_rounded, explanation.qdq_top1),
        *((layer.name, layer.kl_mean, layer.top1) for layer in explanation.kept_float[:MOST]),
        ("all (trained)", 0.0, explanation.trained_top1),
    ]
    kept = Table(
        title=f"Best {min(MOST, len(explanation.kept_float))} layers to keep in float, one at a time",
        header=("Layer", "KL, nats", "Bought back", "Top-1"),
        rows=tuple(
            (v.words(name), v.nats(kl), _bought(all_rounded, kl) if place else v.NONE_HERE, Value(f"{top1} of {n}"))
            for place, (name, kl, top1) in enumerate(rows)
        ),
        notes=(f"Mean KL divergence to the trained stage, where nothing is rounded, over {n} images.",),
    )
    return worst, kept


def _bought(before: float, after: float) -> Value:
    """Share of the divergence that is gone."""
    return v.NONE_HERE if before <= 0 or not math.isfinite(after) else Value(f"{100 * (1 - after / before):.0f}%")
