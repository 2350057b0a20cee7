"""Tables of latency and of instruction counts, and in words what is known of the device that was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.metrics.latency import LatencySummary, summarize
from pipeline.records.latency import InstructionRecord, LatencyRecord
from pipeline.records.report import RunRecord
from pipeline.report import values as v
from pipeline.report.cells import Cell, load_time, peak_memory, place, run_cells, timed, times_control, times_float
from pipeline.report.tables.table import Column, Columns, Table, grouped
from pipeline.report.values import Value
from targets.worker.facts import Conditions, DeviceFacts

LATENCY_NOTES = (
    "MAD: median absolute deviation from the median. One sample is one image. Load: opening the file as the "
    "first one of a fresh process, median of a benchmark, else one process of validate; the system may have the file "
    "in memory already.",
    "× fp32: an int8 file over the float32 file of the same model in the same rounds; below 1 it is faster.",
)
INSTRUCTION_NOTE = (
    "Instructions that an emulated processor executed for one image on one thread, without the start of the "
    "process. They are no time: a change tells that a file does other work than before, not how fast it is."
)


def latencies(run: RunRecord) -> Table:
    """Summaries of the raw samples, and the control measured in the same rounds."""
    found = [cell for cell in run_cells(run) if not cell.simulations]
    notes = [(f"{cell.place} {cell.file.variant}", note) for cell in found for note in _notes(cell.latency)]
    return Table.of(f"{run.model}: latency", LATENCY_COLUMNS, found, notes=(*LATENCY_NOTES, *grouped(notes)))


def _notes(record: LatencyRecord | None) -> list[str]:
    """Why something was not measured beside a cell, and how the cell was measured."""
    if record is None or record.rounds_ms is None:
        return []
    control = [f"control: {record.control_note}"] if record.control_note else []
    floats = [f"fp32: {record.float_note}"] if record.float_note else []
    return [*control, *floats, *circumstances(record)]


def _rounds(record: LatencyRecord) -> Value:
    """How many, over how many fresh processes."""
    rounds = len(record.rounds_ms or ())
    spread = f" in {record.processes} processes" if record.processes > 1 else ""
    return Value(f"{rounds}{spread}\n{len(record.warmup_ms)} warm-up", sort=rounds)


def _summary(record: LatencyRecord) -> LatencySummary:
    return summarize(v.flat_samples(record.rounds_ms or ()))


def _column(header: str, of: Callable[[LatencyRecord], Any], shown: Callable[[Any], Value] = v.words) -> Column[Cell]:
    """A figure of the samples: of a cell that was not timed it is not measured."""
    return Column(header, lambda cell: of(cell.latency) if cell.latency and cell.latency.rounds_ms else None, shown)


LATENCY_COLUMNS: Columns[Cell] = (
    Column("Runtime", place),
    Column("Median", lambda cell: timed(cell.latency)),
    _column("p90", lambda record: _summary(record).p90_ms, v.milliseconds),
    _column("MAD", lambda record: _summary(record).mad_ms, v.milliseconds),
    Column("Load", load_time),
    Column("Peak memory", peak_memory),
    _column("Rounds", _rounds),
    _column("Threads", lambda record: record.threads, v.count),
    _column("Control", lambda record: record.control_rounds_ms, v.median),
    Column("× control", lambda cell: times_control(cell.latency)),
    Column("× fp32", times_float),
)


def instructions(run: RunRecord) -> Table | None:
    """One row for each file that was counted; None for a run without."""
    if not run.instructions:
        return None
    title = f"{run.model}: instructions of one inference"
    return Table.of(title, INSTRUCTION_COLUMNS, run.instructions, notes=(INSTRUCTION_NOTE,))


def _instructions(record: InstructionRecord) -> Value:
    if record.count is None:
        return v.outcome(record.outcome)
    return Value(f"{record.count.per_inference / 1e6:,.2f} M", sort=record.count.per_inference)


INSTRUCTION_COLUMNS: Columns[InstructionRecord] = (
    Column("Runtime", lambda record: record.key.label),
    Column("Instructions", _instructions),
    Column(
        "Spread of counts",
        lambda record: record.count,
        lambda count: Value(f"{count.spread:,} in {count.repeats}", sort=count.spread),
    ),
    Column("Counted by", lambda record: record.count and record.count.counted_by),
)


def facts_lines(facts: DeviceFacts) -> list[str]:
    """What it is, and which runtimes it has."""
    cores = "unknown cores" if facts.cores is None else f"{facts.cores} cores"
    extensions = f" ({' '.join(facts.vector_extensions)})" if facts.vector_extensions else ""
    lines = [f"model: {facts.model}", f"chip: {facts.chip}, {cores}{extensions}", f"system: {facts.system}"]
    if facts.emulated:
        lines.append("emulated: figures are about numerics, latency is not measured")
    for name, capability in facts.runtimes.items():
        lines.append(f"{name}: {'yes' if capability.available else f'no: {capability.reason}'}")
    if facts.versions:
        lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in facts.versions.items()))
    return lines


def conditions_line(conditions: Conditions) -> str:
    """What is known of its state; "state not told" where nothing is."""
    c = conditions
    parts = [
        None if c.temperature_c is None else f"{c.temperature_c:.1f} °C",
        None if c.thermal_status is None else f"thermal status {c.thermal_status}",
        None if c.battery_percent is None else f"battery {c.battery_percent:.0f} %",
        None if c.charging is None else ("charging" if c.charging else "not charging"),
        "power saving mode" if c.low_power else None,
        None if c.screen is None else f"screen {c.screen}",
        None if not c.governors else f"governor {', '.join(dict.fromkeys(c.governors))}",
        None if c.load_1min is None else f"load {c.load_1min:.2f}",
    ]
    return ", ".join(part for part in parts if part) or "state not told"


def circumstances(record: LatencyRecord) -> list[str]:
    """What a reader has to know of how this was measured; of this host only what speaks against it."""
    notes = []
    slowing = record.throttling
    if slowing is not None and slowing.flagged:
        how = "in one step" if slowing.shape == "step" else "more and more"
        notes.append(
            f"throttled: {slowing.slowdown:.2f} x slower at the end, {how} from round {slowing.at_round} of "
            f"{slowing.rounds} (p {slowing.p_value:.4f}); medians are of both states, the ratio to the control is not"
        )
    if record.steady is False:
        notes.append("the warm-up ended before its time was steady")
    if record.device is None:
        return notes
    if slowing is None and record.rounds_ms is not None:
        notes.append("throttling not measured: too few rounds")
    device = record.device
    notes.append(f"{device.model}, {device.chip}, {device.system}")
    if record.cpus:
        notes.append(f"bound to cores {', '.join(map(str, record.cpus))}")
    if record.inferences_per_sample > 1:
        notes.append(f"each sample is the mean of {record.inferences_per_sample} inferences")
    if record.conditions:
        first, last = record.conditions[0], record.conditions[-1]
        notes.append(f"before: {conditions_line(first)}")
        if len(record.conditions) > 1:
            notes.append(f"after: {conditions_line(last)}")
    return notes
