"""Compute plans of a run's Core ML packages in, tables of which unit runs what, and at what estimated cost, out."""

from __future__ import annotations

from collections import Counter, defaultdict

from pipeline.records.latency import PlanRecord
from pipeline.report import values as v
from pipeline.report.tables.table import Table
from targets.compute_plan import NOT_TOLD, ComputePlan

ESTIMATED = "Core ML's own estimate before anything runs, as a share of the whole program; not a measurement."


def plan_tables(record: PlanRecord) -> tuple[Table, ...]:
    """By unit, then by operator type; none for a package that could not be planned."""
    if record.plan is None:
        return ()
    what = f"{record.key.model} {record.key.precision} on {record.plan.units}"
    return _by_unit(record.plan, what), _by_type(record.plan, what)


def _by_unit(plan: ComputePlan, what: str) -> Table:
    costs = plan.cost_by_unit()
    rows = tuple(
        (v.words(unit), v.count(count), _share(costs[unit])) for unit, count in plan.operations_by_unit().items()
    )
    note = f"Compiled and loaded in {plan.load_ms:.0f} ms. Cost: {ESTIMATED}"
    return Table(f"Compute plan: {what}", ("Unit", "Operations", "Estimated cost"), rows, notes=(note,))


def _by_type(plan: ComputePlan, what: str) -> Table:
    units = tuple(plan.operations_by_unit())
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    costs: dict[str, list[float]] = defaultdict(list)
    for operation in plan.operations:
        counts[operation.type][operation.preferred or NOT_TOLD] += 1
        if operation.cost is not None:
            costs[operation.type].append(operation.cost)
    order = sorted(counts, key=lambda kind: (-sum(costs[kind]), kind))
    rows = tuple(
        (
            v.words(kind),
            *(v.count(counts[kind][unit]) for unit in units),
            _share(sum(costs[kind]) if costs[kind] else None),
        )
        for kind in order
    )
    return Table(f"Compute plan by operator: {what}", ("Operator", *units, "Estimated cost"), rows)


def _share(cost: float | None) -> v.Value:
    return v.Value("not told", "not measured") if cost is None else v.Value(f"{100 * cost:.1f}%", sort=cost)
