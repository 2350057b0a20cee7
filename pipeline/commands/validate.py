"""`validate`: accuracy and drift of a run's artifacts on the validation images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.commands.device_options import DeviceChoice
from pipeline.commands.from_plans import from_plans
from pipeline.commands.options import ComputeUnits, RunChoice, TargetChoice, compute_units_of, say
from pipeline.config import ValidationPlan
from pipeline.errors import BelowBarError, UsageError
from pipeline.records.keys import raise_if_failed
from targets import registry
from targets.words import suggest

if TYPE_CHECKING:
    from pipeline.records.validation import ValidationRecord


@from_plans
def validate(
    *,
    choice: TargetChoice,
    compute_units: ComputeUnits = registry.ALL_UNITS,
    plan: ValidationPlan,
    device: DeviceChoice,
    where: RunChoice,
) -> None:
    targets = choice.names()
    if plan.explain and device.address.kind != "host":
        raise UsageError(f"--explain looks into files on this host, not on --on {device.on}: leave one of them out")
    chosen_units = compute_units_of(compute_units, targets)
    _check_roundings(plan.roundings)
    found = where.find()
    from pipeline.report.collect import first_table
    from pipeline.report.tables.table import print_tables
    from pipeline.stages.validate import validate_run

    explainer = None
    if plan.explain:
        from pipeline.report.tables.waterfall import show_waterfall
        from pipeline.stages.explain import Explainer

        explainer = Explainer(found, plan.limit, plan.explain_images)
    with device.place() as on:
        look = None if explainer is None else explainer.look
        records = validate_run(found, targets, plan, say, chosen_units, look, on, device.resume)
    print_tables(first_table(found))
    if explainer is not None:
        show_waterfall(explainer.finish(say))
    raise_if_failed("run", ((r.key.label, r.outcome) for r in records))
    if plan.min_agreement is not None:
        raise_if_below(plan.min_agreement, records)


def raise_if_below(bar: float, records: Iterable[ValidationRecord]) -> None:
    """Artifacts of the trained checkpoint are held against its QDQ program, others against the float model.

    Raises:
        BelowBarError: names each artifact with less than `bar` percent agreement; also where none was measured.
    """
    measured = [(r.key, drift) for r in records if (drift := r.drift_qdq or r.drift_float)]
    if not measured:
        raise BelowBarError(f"no artifact was measured on this machine: agreement of at least {bar:g} % is not shown")
    below = [(key, drift) for key, drift in measured if drift.agreement_percent < bar]
    if below:
        lines = (f"{key.label}: {drift.agreement_percent:.2f} % (n={drift.n})" for key, drift in below)
        raise BelowBarError(
            f"{len(below)} of {len(measured)} artifacts agree on less than {bar:g} % of the images:\n  "
            + "\n  ".join(lines)
        )


def _check_roundings(names: Sequence[str]) -> None:
    """
    Raises:
        UsageError: an unknown rounding model.
    """
    known = [rounding for target in registry.everyone() for rounding in target.roundings]
    for name in names:
        if name not in known:
            raise UsageError(f"--rounding {name!r} is not one of {', '.join(known)}.{suggest(name, known)}")
