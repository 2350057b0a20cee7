"""Injects faults at random moments of real sessions on a device, and counts what was taken for a success.

    python benchmarks/device_faults.py --device ssh [--count 100] [--kinds "worker killed,link cut"] [--json FILE]

Nothing but this machine is needed: the device's end runs here, behind the real transport. A fault that came after its
session was over teaches nothing, and is injected again at another moment. Ends with 1 if any fault was counted as a
success, or if an error came later than 10 s after the limit of a request.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from faults import Outcome  # noqa: E402

from pipeline.files import write_json  # noqa: E402

# device -> the module with KINDS (kind -> what is done) and bench(), a context manager with inject(kind, seed)
DEVICES = {"ssh": "faults_ssh", "adb": "faults_adb"}
GRACE_S = 10.0
# Of moments that came too late; more than these says that the moments are drawn wrongly.
TRIES = 5


def injected(bench: object, kind: str, count: int) -> list[Outcome]:
    """`count` faults that did come in time."""
    found: list[Outcome] = []
    for seed in range(TRIES * count):
        outcome: Outcome = bench.inject(kind, seed)  # type: ignore[attr-defined]
        if outcome.injected:
            found.append(outcome)
        if len(found) == count:
            return found
    raise SystemExit(f"{kind}: only {len(found)} of {TRIES * count} faults came before their session was over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, required=True)
    parser.add_argument("--count", type=int, default=100, help="faults of each kind")
    parser.add_argument("--kinds", default="", help="comma-separated; default: all")
    parser.add_argument("--json", type=Path, help="write every outcome there")
    arguments = parser.parse_args()
    module = import_module(DEVICES[arguments.device])
    kinds = [kind.strip() for kind in arguments.kinds.split(",") if kind.strip()] or list(module.KINDS)
    if unknown := sorted(set(kinds) - set(module.KINDS)):
        parser.error(f"no kind {unknown[0]!r} (known: {', '.join(module.KINDS)})")

    failed = False
    record = {}
    print("| kind | injected | error | counted as success | left over | median, slowest error in s | what was done |")
    print("|---|---|---|---|---|---|---|")
    with module.bench() as bench:
        for kind in kinds:
            outcomes = injected(bench, kind, arguments.count)
            times = sorted(outcome.error_s for outcome in outcomes)
            successes = sum(outcome.counted_as_success for outcome in outcomes)
            left = sum(outcome.left_over for outcome in outcomes)
            late = sum(outcome.error_s > outcome.limit_s + GRACE_S for outcome in outcomes)
            failed |= bool(successes or late)
            print(
                f"| {kind} | {len(outcomes)} | {len(outcomes) - successes} | {successes} | {left} "
                f"| {times[len(times) // 2]:.2f}, {times[-1]:.2f} | {module.KINDS[kind]} |",
                flush=True,
            )
            record[kind] = [vars(outcome) for outcome in outcomes]
    if arguments.json:
        write_json(arguments.json, record)
    sys.exit(failed)


if __name__ == "__main__":
    main()
