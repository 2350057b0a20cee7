"""Ask Core ML on a Mac for its compute plan of a package: which unit runs each operation, at what estimated cost.

The plan is what the framework intends before it runs, not a measurement. As a program it writes the plan as JSON, so
that a framework which aborts ends that process alone: `python -m targets.coreml.compute_plan PACKAGE UNITS PLAN.json`.
Source: Apple's MLComputePlan (macOS 14.4 and later) through coremltools.models.compute_plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.coreml import mil
from targets.coreml.runner import compiled, run_unavailable_reason
from targets.sdk import one_line
from targets.types import TargetError, Unavailable

if TYPE_CHECKING:
    from coremltools.models.compute_device import MLComputeDevice
    from coremltools.models.compute_plan import (
        MLComputePlanCost,
        MLComputePlanDeviceUsage,
        MLModelStructureProgramBlock,
        MLModelStructureProgramOperation,
    )
from targets.target import UNITS, ComputePlan, PlannedOperation, Unit

# The framework compiles and specialises the package first, which can take minutes for a large model.
TIMEOUT_S = 1800.0

_SOURCE_ROOT = Path(__file__).resolve().parents[2]


def plan_of(path: Path, choice: str) -> ComputePlan:
    """The compute plan of the package at `path`, read in a process of its own.

    Args:
        choice: of compute units (targets.coreml.units).

    Raises:
        Unavailable: not a Mac.
        TargetError: stage "load", Core ML refuses the package, or gives no plan on this system.
    """
    if reason := run_unavailable_reason():
        raise Unavailable("load", reason)
    with tempfile.TemporaryDirectory(prefix="compute-plan-") as folder:
        answer = Path(folder, "plan.json")
        # -P: the current folder must not shadow modules.
        command = [sys.executable, "-P", "-m", "targets.coreml.compute_plan", str(path.resolve()), choice, str(answer)]
        python_path = os.pathsep.join(filter(None, (str(_SOURCE_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            ended = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": python_path},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise TargetError("load", f"{path.name}: no compute plan within {error.timeout:g} s") from error
        if not answer.exists():
            tail = " | ".join(line.strip() for line in ended.stderr.splitlines()[-6:] if line.strip())
            raise TargetError("load", f"{path.name}: no compute plan (status {ended.returncode}): {tail or '(silent)'}")
        return decode(json.loads(answer.read_text()))


def read_plan(path: Path, choice: str) -> ComputePlan:
    """`plan_of` in this process.

    Raises:
        Unavailable: not a Mac.
        TargetError: stage "load".
    """
    if reason := run_unavailable_reason():
        raise Unavailable("load", reason)
    from coremltools.models.compute_plan import MLComputePlan

    from targets.coreml import units

    model, load_ms = compiled(path, choice)
    try:
        # `model` is kept until the end: the compiled folder lives as long as it does.
        plan = MLComputePlan.load_from_path(model.get_compiled_model_path(), compute_units=units.compute_unit(choice))
        program = plan.model_structure.program
    except Exception as error:  # the framework's errors come as RuntimeError, ValueError and its own
        cause = f"Core ML gives no compute plan of {path.name} ({error}): it needs macOS 14.4 or later"
        raise TargetError("load", one_line(cause)) from error
    if program is None:
        raise TargetError("load", f"{path.name} is not an ML Program: convert it with this program")
    operations = planned_operations(
        program.functions["main"].block,
        plan.get_compute_device_usage_for_mlprogram_operation,
        plan.get_estimated_cost_for_mlprogram_operation,
    )
    return ComputePlan(choice, load_ms, tuple(operations))


def planned_operations(
    block: MLModelStructureProgramBlock,
    usage_of: Callable[[MLModelStructureProgramOperation], MLComputePlanDeviceUsage | None],
    cost_of: Callable[[MLModelStructureProgramOperation], MLComputePlanCost | None],
) -> Iterator[PlannedOperation]:
    """What the plan says of each operation of a block and of the blocks nested in it; constants are no work."""
    for operation in mil.walk(block.operations):
        if operation.operator_name.rpartition(".")[2] == "const":
            continue
        usage, cost = usage_of(operation), cost_of(operation)
        yield PlannedOperation(
            type=operation.operator_name,
            name=operation.outputs[0].name if operation.outputs else "",
            preferred=None if usage is None else unit_of(usage.preferred_compute_device),
            supported=() if usage is None else tuple(map(unit_of, usage.supported_compute_devices)),
            cost=None if cost is None else float(cost.weight),
        )


def unit_of(device: MLComputeDevice) -> Unit:
    """The short name of one of coremltools' compute devices.

    Raises:
        ValueError: a kind of device that coremltools 9 does not have.
    """
    from coremltools.models.compute_device import (
        MLCPUComputeDevice,
        MLGPUComputeDevice,
        MLNeuralEngineComputeDevice,
    )

    kinds: dict[type, Unit] = {
        MLCPUComputeDevice: "cpu",
        MLGPUComputeDevice: "gpu",
        MLNeuralEngineComputeDevice: "neural engine",
    }
    for kind, unit in kinds.items():
        if isinstance(device, kind):
            return unit
    raise ValueError(f"the compute plan names a {type(device).__name__}, which is none of {', '.join(UNITS)}")


def decode(message: Mapping[str, Any]) -> ComputePlan:
    """The plan behind `dataclasses.asdict` and JSON."""
    operations = (PlannedOperation(**{**o, "supported": tuple(o["supported"])}) for o in message["operations"])
    return ComputePlan(message["units"], message["load_ms"], tuple(operations))


def main() -> None:
    """Write the plan; a TargetError becomes the last line of standard error and status 1."""
    package, choice, output = sys.argv[1:]
    try:
        plan = read_plan(Path(package), choice)
    except TargetError as error:
        sys.exit(error.cause)
    Path(output).write_text(json.dumps(asdict(plan)))


if __name__ == "__main__":
    main()
