"""Facts and conditions of devices, and what a latency was measured under, in; lines of text out."""

from __future__ import annotations

from pipeline.records.latency import LatencyRecord
from targets.worker.facts import Conditions, DeviceFacts


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
