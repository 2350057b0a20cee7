"""Tables of what files hold, of compute plans, and of the schemes that each target is made in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from pipeline.records.conversion import ConversionRecord
from pipeline.records.latency import PlanRecord
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.cells import file_size
from pipeline.report.tables.table import Column, Columns, Table, grouped
from pipeline.report.values import Value
from targets import registry
from targets.target import ALIASES, NOT_TOLD, ComputePlan, Support
from targets.types import PRECISIONS, FactsRecord, Precision, TensorSpec

ESTIMATED = "Core ML's own estimate before anything runs, as a share of the whole program; not a measurement."


def artifacts(run: RunRecord) -> Table:
    """What each written file holds, read from the file."""
    meant = run.scheme.get("float_layers")  # runs of older versions have none
    meant_float = len(meant) if isinstance(meant, list | tuple) else 0
    notes = [
        (f"{record.target} {record.artifact.variant}", note)
        for record in run.conversions
        if record.facts is not None and record.outcome.status == "ok"
        for note in _notes(record, record.facts, meant_float)
    ]
    return Table.of(f"{run.model}: artifacts", ARTIFACT_COLUMNS, run.conversions, notes=grouped(notes))


def _column(header: str, of: Callable[[ConversionRecord, FactsRecord], Value]) -> Column[ConversionRecord]:
    """A figure of the files that were written."""

    def shown(record: ConversionRecord) -> Value | None:
        return of(record, record.facts) if record.facts is not None and record.outcome.status == "ok" else None

    return Column(header, shown)


def _operators(_: ConversionRecord, facts: FactsRecord) -> Value:
    if facts.fallback is None or facts.delegated is None:
        return v.NOT_IN_FILE
    outside = sum(facts.fallback.values())
    return Value(f"{facts.delegated} / {outside}", sort=outside)


def _scales(record: ConversionRecord, _: FactsRecord) -> Value:
    found, total = record.scales_found, record.scales_total
    if found is None or total is None:
        return v.NONE_HERE if record.source == "float" else v.NOT_MEASURED
    return Value(f"{found} of {total}", sort=found - total)


ARTIFACT_COLUMNS: Columns[ConversionRecord] = (
    Column("Artifact", lambda r: f"{r.target}\n{r.artifact.variant}"),
    Column("Size", file_size),
    _column("Weights int8 / float", lambda _, f: Value(f"{f.int8_weights} / {f.float_weights}", sort=f.float_weights)),
    _column("Delegate partitions", lambda _, facts: v.count_in_file(facts.partitions)),
    _column("Operators in / outside", _operators),
    _column("Trained scales found", _scales),
    _column("Converted in", lambda record, _: v.measured(record.seconds, v.seconds)),
)


def _notes(record: ConversionRecord, facts: FactsRecord, meant_float: int) -> Iterator[str]:
    if facts.fallback:
        yield f"outside the delegate: {v.names(v.tally(facts.fallback))}"
    if facts.weights_by_dtype:
        yield f"weights by dtype: {v.names(v.tally(facts.weights_by_dtype))}"
    if record.precision == "int8" and facts.float_weight_names:
        why = f" ({meant_float} layers are meant to be)" if meant_float else ""
        yield f"weights left in float{why}: {v.names(facts.float_weight_names)}"
    if record.scales_missing:
        yield f"trained scales not found: {v.names(record.scales_missing)}"
    if record.load_check:
        yield f"load check: {record.load_check}"
    yield from (f"caution: {caution}" for caution in facts.cautions)


def file_facts(name: str, facts: FactsRecord) -> Table:
    """Everything that one written file holds, read from the file; cautions stand below."""
    where = [] if facts.fallback is None else [("outside of delegates", v.listing(v.tally(facts.fallback)))]
    rows = (
        ("size", v.megabytes(facts.size_bytes)),
        *((f"input {spec.name}", _tensor(spec)) for spec in facts.inputs),
        *((f"output {spec.name}", _tensor(spec)) for spec in facts.outputs),
        ("trained weights", v.listing(v.tally(facts.weights_by_dtype))),
        ("weights in float", v.listing(facts.float_weight_names)),
        ("delegate partitions", v.count_in_file(facts.partitions)),
        ("operators in delegates", v.count_in_file(facts.delegated)),
        *where,
        ("operators", v.count(sum(facts.operators.values()))),
        *((kind, v.count(count)) for kind, count in (facts.operators_by_dtype or facts.operators).items()),
    )
    columns: Columns[tuple[str, Value]] = (Column("What", lambda row: row[0]), Column("Value", lambda row: row[1]))
    notes = (f"caution: {caution}" for caution in facts.cautions)
    return Table.of(f"{name}: what the file holds", columns, rows, label_columns=2, notes=notes)


def _tensor(spec: TensorSpec) -> Value:
    return v.words(f"{spec.dtype} {list(spec.shape)}" if spec.shape else spec.dtype)


def plan_tables(record: PlanRecord) -> tuple[Table, ...]:
    """A Core ML package's plan by unit, then by operator type; none for a package that could not be planned."""
    if record.plan is None:
        return ()
    what = f"{record.key.model} {record.key.precision} on {record.plan.units}"
    return _by_unit(record.plan, what), _by_type(record.plan, what)


def _by_unit(plan: ComputePlan, what: str) -> Table:
    counts, costs = plan.operations_by_unit(), plan.cost_by_unit()
    columns: Columns[str] = (
        Column("Unit", lambda unit: unit),
        Column("Operations", lambda unit: counts[unit], v.count),
        Column("Estimated cost", lambda unit: _share(costs[unit])),
    )
    note = f"Compiled and loaded in {plan.load_ms:.0f} ms. Cost: {ESTIMATED}"
    return Table.of(f"Compute plan: {what}", columns, counts, notes=(note,))


def _by_type(plan: ComputePlan, what: str) -> Table:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    costs: dict[str, list[float]] = defaultdict(list)
    for operation in plan.operations:
        counts[operation.type][operation.preferred or NOT_TOLD] += 1
        if operation.cost is not None:
            costs[operation.type].append(operation.cost)

    def on(unit: str) -> Column[str]:
        return Column(unit, lambda kind: counts[kind][unit], v.count)

    columns: Columns[str] = (
        Column("Operator", lambda kind: kind),
        *map(on, plan.operations_by_unit()),
        Column("Estimated cost", lambda kind: _share(sum(costs[kind]) if costs[kind] else None)),
    )
    order = sorted(counts, key=lambda kind: (-sum(costs[kind]), kind))
    return Table.of(f"Compute plan by operator: {what}", columns, order)


def _share(cost: float | None) -> Value:
    return Value("not told", "not measured") if cost is None else Value(f"{100 * cost:.1f}%", sort=cost)


def show() -> None:
    """On stdout: which target is made in which precision, then how or why not, line by line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    targets = registry.everyone()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("precision", *registry.variants()):
        table.add_column(name, no_wrap=True)
    for precision in PRECISIONS:
        table.add_row(_name(precision), *(_short(target.schemes[precision]) for target in targets))
    console = Console()
    console.print(table)
    for precision in PRECISIONS:
        print(f"\n{_name(precision)}")
        for target in targets:
            print(f"  {target.name}: {scheme_words(target.schemes[precision])}")


def scheme_words(support: Support) -> str:
    """Whether files are made so, how or why not, and the groups to choose from."""
    groups = f" (`--group-size` {', '.join(map(str, support.group_sizes))})" if support.group_sizes else ""
    return f"{_short(support)}: {support.words}{groups}"


def _short(support: Support) -> str:
    return "yes" if support.made else "no"


def _name(precision: Precision) -> str:
    names = [alias for alias, meant in ALIASES.items() if meant == precision]
    return f"{precision} ({', '.join(names)})" if names else precision
