"""Conversions of a run in, tables of what each written file holds out."""

from __future__ import annotations

from pipeline.records.conversion import FactsRecord
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.cells import variant_name
from pipeline.report.tables.table import Table, grouped
from pipeline.report.values import Value
from targets.types import TensorSpec


def artifacts(run: RunRecord) -> Table:
    """What each written file holds, read from the file."""
    rows: list[tuple[Value, ...]] = []
    notes: list[tuple[str, str]] = []
    for record in run.conversions:
        name = f"{record.target} {variant_name(record.precision, record.source)}"
        label = v.words(f"{record.target}\n{variant_name(record.precision, record.source)}")
        facts = record.facts
        if record.outcome.status != "ok":
            rows.append((label, v.outcome(record.outcome), *[v.NOT_MEASURED] * 5))
            continue
        assert facts is not None  # ConversionRecord holds it
        outside = None if facts.fallback is None else sum(facts.fallback.values())
        scales = v.NONE_HERE if record.source == "float" else v.NOT_MEASURED
        if record.scales_total is not None and record.scales_found is not None:
            scales = Value(
                f"{record.scales_found} of {record.scales_total}", sort=record.scales_found - record.scales_total
            )
        rows.append(
            (
                label,
                v.megabytes(facts.size_bytes),
                Value(f"{facts.int8_weights} / {facts.float_weights}", sort=facts.float_weights),
                v.count(facts.partitions, "not in the file"),
                Value("not in the file", "not measured")
                if outside is None or facts.delegated is None
                else Value(f"{facts.delegated} / {outside}", sort=outside),
                scales,
                v.seconds(record.seconds),
            )
        )
        if facts.fallback:
            notes.append((name, f"outside the delegate: {v.names(v.tally(facts.fallback))}"))
        if facts.weights_by_dtype:
            notes.append((name, f"weights by dtype: {v.names(v.tally(facts.weights_by_dtype))}"))
        if record.precision == "int8" and facts.float_weight_names:
            meant = len(_float_layers(run))
            why = f" ({meant} layers are meant to be)" if meant else ""
            notes.append((name, f"weights left in float{why}: {v.names(facts.float_weight_names)}"))
        if record.scales_missing:
            notes.append((name, f"trained scales not found: {v.names(record.scales_missing)}"))
        if record.load_check:
            notes.append((name, f"load check: {record.load_check}"))
        notes += [(name, f"caution: {caution}") for caution in facts.cautions]
    return Table(
        title=f"{run.model}: artifacts",
        header=(
            "Artifact",
            "Size",
            "Weights int8 / float",
            "Delegate partitions",
            "Operators in / outside",
            "Trained scales found",
            "Converted in",
        ),
        rows=tuple(rows),
        notes=grouped(notes),
    )


def _float_layers(run: RunRecord) -> list[object]:
    """Of the scheme; runs of older versions have none."""
    layers = run.scheme.get("float_layers")
    return list(layers) if isinstance(layers, list | tuple) else []


def file_facts(name: str, facts: FactsRecord) -> Table:
    """Everything that one written file holds, read from the file; cautions stand below."""
    where = [] if facts.fallback is None else [("outside of delegates", _listing(v.tally(facts.fallback)))]
    rows = (
        ("size", v.megabytes(facts.size_bytes)),
        *((f"input {spec.name}", _tensor(spec)) for spec in facts.inputs),
        *((f"output {spec.name}", _tensor(spec)) for spec in facts.outputs),
        ("trained weights", _listing(v.tally(facts.weights_by_dtype))),
        ("weights in float", _listing(facts.float_weight_names)),
        ("delegate partitions", v.count(facts.partitions, "not in the file")),
        ("operators in delegates", v.count(facts.delegated, "not in the file")),
        *where,
        ("operators", v.count(sum(facts.operators.values()))),
        *((kind, v.count(count)) for kind, count in (facts.operators_by_dtype or facts.operators).items()),
    )
    return Table(
        title=f"{name}: what the file holds",
        header=("What", "Value"),
        rows=tuple((v.words(what), value) for what, value in rows),
        label_columns=2,
        notes=tuple(f"caution: {caution}" for caution in facts.cautions),
    )


def _listing(items: tuple[str, ...], limit: int = 12) -> Value:
    """The first items, and how many more there are."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return v.words(", ".join(items[:limit]) + rest) if items else v.NONE_HERE


def _tensor(spec: TensorSpec) -> Value:
    return v.words(f"{spec.dtype} {list(spec.shape)}" if spec.shape else spec.dtype)
