"""An `.mlpackage` in, the facts that it holds out, read with coremltools' own MIL loader, weights file included.

Which unit runs an operator is decided on the device: delegated, fallback and partitions are not known from the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from targets.coreml.convert import unavailable_reason
from targets.types import GraphFacts, QuantParams, TargetError, TensorSpec, Unavailable
from targets.weights import is_trained

# Operators that hold a layer's weights, and the input that is the weight.
_WEIGHT_INPUT = {"linear": "weight", "conv": "weight", "conv_transpose": "weight", "matmul": "y"}
_COMPRESSED = "constexpr_affine_dequantize"


def inspect(path: Path) -> GraphFacts:
    """Read the facts from the package at `path`.

    Raises:
        Unavailable: no coremltools here.
        TargetError: stage "inspect", for a corrupt or foreign package.
    """
    if not path.is_dir():
        what = "is a file, not a package folder" if path.exists() else "does not exist: convert the model first"
        raise TargetError("inspect", f"{path.name} {what}")
    if reason := unavailable_reason():
        raise Unavailable("inspect", reason)
    try:
        spec, operations = load_operations(path)
        return _facts(path, spec, operations)
    except Exception as error:  # the loader raises whatever a damaged protobuf or weights file makes it meet
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise TargetError(
            "inspect", f"{path.name} is damaged or not an ML Program ({reason}): convert again"
        ) from error


def load_operations(path: Path) -> tuple[Any, list[Any]]:
    """The package's Model protobuf, and the MIL operations of its main function in order."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    return spec, list(program.functions["main"].operations)


def _facts(path: Path, spec: Any, operations: list[Any]) -> GraphFacts:
    weights = dict(_weights(operations))
    floats = tuple(name for name, int8 in weights.items() if not int8)
    counted = Counter(op.op_type for op in operations if op.op_type != "const")
    return GraphFacts(
        size_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        inputs=tuple(_tensor_spec(feature) for feature in spec.description.input),
        outputs=tuple(_tensor_spec(feature) for feature in spec.description.output),
        operators=dict(counted.most_common()),
        delegated=None,
        fallback=None,
        partitions=None,
        int8_weights=sum(weights.values()),
        float_weights=len(floats),
        float_weight_names=floats,
        quant_params=tuple(_quant_params(operations)),
    )


def _weights(operations: list[Any]) -> Iterator[tuple[str, bool]]:
    """Name of each trained constant that is some operator's weight, and whether it is stored as int8."""
    for operation in operations:
        name = _WEIGHT_INPUT.get(operation.op_type)
        weight = operation.inputs.get(name) if name else None
        if weight is None or weight.op is None:
            continue
        if weight.op.op_type == _COMPRESSED:
            yield weight.name, weight.op.quantized_data.val.dtype in (np.int8, np.uint8)
        elif weight.op.op_type == "const" and is_trained(weight.val):
            yield weight.name, weight.val.dtype in (np.int8, np.uint8)


def _quant_params(operations: list[Any]) -> Iterator[QuantParams]:
    for operation in operations:
        if operation.op_type in ("quantize", _COMPRESSED):
            scale = np.atleast_1d(np.asarray(operation.scale.val, dtype=np.float64)) * _divided_out(operation)
            stored = operation.zero_point
            zero_point = np.zeros(1, int) if stored is None or stored.val is None else np.atleast_1d(stored.val)
            yield QuantParams(tuple(map(float, scale.ravel())), tuple(map(int, np.ravel(zero_point))))


def _divided_out(operation: Any) -> float:
    """By what coremltools divided the scale of a quantized sum, 1 for everything else.

    Its pass distributive_quantized_binary_op_scale_normalization divides the scales around dequantize -> add ->
    quantize by that of the first input, which the kernel can then leave out. The input's own quantize keeps its scale.
    """
    total = operation.input.op if operation.op_type == "quantize" else None
    if total is None or total.op_type not in ("add", "sub"):
        return 1.0
    for branch in (total.x.op, total.y.op):
        source = branch.input.op if branch is not None and branch.op_type == "dequantize" else None
        if source is not None and source.op_type == "quantize":
            return float(_scalar(source.scale) * _divided_out(source) / _scalar(branch.scale))
    return 1.0


def _scalar(variable: Any) -> float:
    return float(np.asarray(variable.val, dtype=np.float64))


def _tensor_spec(feature: Any) -> TensorSpec:
    array = feature.type.multiArrayType
    names = {v: k.lower() for k, v in array.ArrayDataType.items()}
    return TensorSpec(feature.name, tuple(int(size) for size in array.shape), names[array.dataType])
