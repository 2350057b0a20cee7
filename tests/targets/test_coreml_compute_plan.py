"""The walk through Core ML's compute plan, on coremltools' own classes; the plan itself comes from a Mac only."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from coremltools.models.compute_device import (
    MLComputeDevice,
    MLCPUComputeDevice,
    MLGPUComputeDevice,
    MLNeuralEngineComputeDevice,
)
from coremltools.models.compute_plan import (
    MLComputePlanCost,
    MLComputePlanDeviceUsage,
    MLModelStructureProgramBlock,
    MLModelStructureProgramNamedValueType,
    MLModelStructureProgramOperation,
    MLModelStructureProgramValueType,
)

from pipeline.records.keys import OK, CellKey, Outcome
from pipeline.records.latency import PlanRecord
from pipeline.report.tables.artifacts import plan_tables
from targets.codec import from_dict, to_dict
from targets.coreml.compute_plan import planned_operations, unit_of
from targets.coreml.mil import walk
from targets.target import ComputePlan, PlannedOperation
from targets.types import TargetError, Unavailable
from targets.worker.host import HostWorker

Operation, Block = MLModelStructureProgramOperation, MLModelStructureProgramBlock


def device(kind: type[MLComputeDevice]) -> MLComputeDevice:
    """Without the native object behind it, which exists on a Mac only and which nothing here asks."""
    return kind.__new__(kind)


CPU, GPU, NE = map(device, (MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice))


def operation(kind: str, name: str, *blocks: MLModelStructureProgramBlock) -> MLModelStructureProgramOperation:
    outputs = [MLModelStructureProgramNamedValueType(name, MLModelStructureProgramValueType())] if name else []
    return Operation(inputs={}, operator_name=kind, outputs=outputs, blocks=list(blocks), __proxy__=None)


def block(*operations: MLModelStructureProgramOperation) -> MLModelStructureProgramBlock:
    return Block(inputs=[], operations=list(operations), output_names=[])


@pytest.fixture
def program() -> MLModelStructureProgramBlock:
    """A convolution, a conditional whose branches hold a loop and a product, and a softmax."""
    loop = operation("ios17.while_loop", "loop", block(operation("ios17.add", "step")))
    branches = operation("ios17.cond", "cond", block(loop), block(operation("ios17.const", "w"), operation("mul", "m")))
    return block(operation("const", "weight"), operation("ios17.conv", "c"), branches, operation("softmax", "logits"))


def usage(preferred: MLComputeDevice, *others: MLComputeDevice) -> MLComputePlanDeviceUsage:
    return MLComputePlanDeviceUsage(preferred, [preferred, *others])


USAGES = {"c": usage(NE, CPU, GPU), "cond": usage(CPU), "loop": usage(CPU), "step": usage(CPU), "logits": usage(GPU)}
COSTS = {"c": 0.75, "step": 0.05, "logits": 0.2}


def planned(program: MLModelStructureProgramBlock) -> tuple[PlannedOperation, ...]:
    costs = {name: MLComputePlanCost(weight) for name, weight in COSTS.items()}
    return tuple(
        planned_operations(program, lambda op: USAGES.get(op.outputs[0].name), lambda op: costs.get(op.outputs[0].name))
    )


def test_nested_blocks_are_walked_in_order(program: MLModelStructureProgramBlock) -> None:
    names = [op.outputs[0].name for op in walk(program.operations)]
    assert names == ["weight", "c", "cond", "loop", "step", "w", "m", "logits"]


def test_every_operation_but_constants_is_planned(program: MLModelStructureProgramBlock) -> None:
    operations = planned(program)
    assert [o.name for o in operations] == ["c", "cond", "loop", "step", "m", "logits"]
    assert operations[0] == PlannedOperation("ios17.conv", "c", "neural engine", ("neural engine", "cpu", "gpu"), 0.75)
    assert operations[4] == PlannedOperation("mul", "m", None, (), None)  # neither unit nor cost is told


def test_an_operation_without_outputs_has_no_name() -> None:
    (only,) = planned_operations(block(operation("print", "")), lambda _: None, lambda _: None)
    assert only.name == ""


def test_counts_and_costs_by_unit(program: MLModelStructureProgramBlock) -> None:
    plan = ComputePlan("all", 812.5, planned(program))
    assert plan.operations_by_unit() == {"cpu": 3, "gpu": 1, "neural engine": 1, "not told": 1}
    assert plan.cost_by_unit() == {"cpu": 0.05, "gpu": 0.2, "neural engine": 0.75, "not told": None}


def test_devices_have_names_and_a_new_kind_is_no_guess() -> None:
    class Abacus(MLComputeDevice):
        pass

    assert [unit_of(d) for d in (CPU, GPU, NE)] == ["cpu", "gpu", "neural engine"]
    with pytest.raises(ValueError, match="Abacus"):
        unit_of(Abacus())


@pytest.mark.parametrize("cost", [-0.1, 1.1, float("nan")])
def test_a_cost_that_is_no_share_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="share"):
        PlannedOperation("conv", "c", "cpu", ("cpu",), cost)


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="without operations"):
        ComputePlan("all", 1.0, ())


def test_a_plan_survives_json(program: MLModelStructureProgramBlock) -> None:
    plan = ComputePlan("cpu-and-ne", 812.5, planned(program))
    assert from_dict(ComputePlan, json.loads(json.dumps(asdict(plan)))) == plan
    key = CellKey("t2t_vit_7", "coreml", "coreml-cpu-and-ne", "int8", "qat", "host")
    record = PlanRecord(key, OK, plan)
    assert from_dict(PlanRecord, json.loads(json.dumps(to_dict(record)))) == record


def test_the_table_shows_units_types_and_what_is_not_told(program: MLModelStructureProgramBlock) -> None:
    key = CellKey("t2t_vit_7", "coreml", "coreml", "int8", "qat", "host")
    by_unit, by_type = plan_tables(PlanRecord(key, OK, ComputePlan("all", 812.5, planned(program))))
    assert [[value.text for value in row] for row in by_unit.rows] == [
        ["cpu", "3", "5.0%"],
        ["gpu", "1", "20.0%"],
        ["neural engine", "1", "75.0%"],
        ["not told", "1", "not told"],
    ]
    assert "812 ms" in by_unit.notes[0]
    assert by_type.header == ("Operator", "cpu", "gpu", "neural engine", "not told", "Estimated cost")
    assert [value.text for value in by_type.rows[0]] == ["ios17.conv", "0", "0", "1", "0", "75.0%"]
    assert plan_tables(PlanRecord(key, Outcome("unavailable", "load", "no Mac"), None)) == ()


def test_a_record_has_a_plan_or_a_reason(program: MLModelStructureProgramBlock) -> None:
    key = CellKey("t2t_vit_7", "coreml", "coreml", "int8", "qat", "host")
    with pytest.raises(ValueError, match="without a plan"):
        PlanRecord(key, OK, None)
    with pytest.raises(ValueError, match="unavailable with a plan"):
        PlanRecord(key, Outcome("unavailable", "load", "no Mac"), ComputePlan("all", 1.0, planned(program)))


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_elsewhere_it_is_unavailable(tmp_path: Path) -> None:
    with HostWorker() as worker, pytest.raises(Unavailable, match=f"no Core ML runtime on {sys.platform}") as caught:
        worker.plan("coreml", tmp_path / "any.mlpackage", "all")
    assert caught.value.stage == "load"


def test_other_frameworks_have_no_plan(tmp_path: Path) -> None:
    with HostWorker() as worker, pytest.raises(TargetError, match="tflite cannot be asked for a compute plan"):
        worker.plan("tflite", tmp_path / "any.tflite", "all")


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
def test_on_a_mac_every_operation_of_a_package_is_planned(tmp_path: Path) -> None:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 8, 8))])
    def relu(images):  # type: ignore[no-untyped-def]
        return mb.relu(x=images, name="logits")

    path = tmp_path / "relu.mlpackage"
    ct.convert(relu, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32).save(str(path))
    with HostWorker() as worker:
        plan = worker.plan("coreml", path, "cpu-only")
    assert [o.type.rpartition(".")[2] for o in plan.operations] == ["relu"]
    assert np.isfinite(plan.load_ms)
