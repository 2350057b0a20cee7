"""Ask Core ML on a Mac for its compute plan of a package: which unit runs each operation, at what estimated cost.

The plan is what the framework intends before it runs, not a measurement. Source: Apple's MLComputePlan
(macOS 14.4 and later) through coremltools.models.compute_plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from targets.coreml import mil
from targets.coreml.runner import compiled, run_unavailable_reason
from targets.sdk import one_line
from targets.target import UNITS, ComputePlan, PlannedOperation, Unit
from targets.types import TargetError, Unavailable

if TYPE_CHECKING:
    from coremltools.models.compute_device import MLComputeDevice
    from coremltools.models.compute_plan import (
        MLComputePlanCost,
        MLComputePlanDeviceUsage,
        MLModelStructureProgramBlock,
        MLModelStructureProgramOperation,
    )


def plan_of(path: Path, choice: str) -> ComputePlan:
    """The compute plan of the package at `path`; in the worker's process, because the framework may abort.

    Args:
        choice: of compute units (targets.coreml.units).

    Raises:
        Unavailable: not a Mac.
        TargetError: stage "load", Core ML refuses the package, or gives no plan on this system.
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
    from coremltools.models.compute_device import MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice

    kinds: dict[type, Unit] = {
        MLCPUComputeDevice: "cpu",
        MLGPUComputeDevice: "gpu",
        MLNeuralEngineComputeDevice: "neural engine",
    }
    for kind, unit in kinds.items():
        if isinstance(device, kind):
            return unit
    raise ValueError(f"the compute plan names a {type(device).__name__}, which is none of {', '.join(UNITS)}")
