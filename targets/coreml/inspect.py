"""Read the facts of an `.mlpackage` from the file, with coremltools' own MIL loader, weights file included.

Which unit runs an operator is decided on the device: delegated, fallback and partitions are not known from the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from targets.coreml import encodings, half_precision, mil, neural_engine
from targets.coreml.convert import unavailable_reason
from targets.coreml.encodings import FLOAT, INT8, weights
from targets.coreml.package import missing
from targets.sdk import typed_line
from targets.types import GraphFacts, QuantParams, TargetError, TensorSpec, Unavailable

# Operators that hold the scales of a tensor.
_QUANTIZING = ("quantize", "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")


def inspect(path: Path) -> GraphFacts:
    """Read the facts from the package at `path`.

    Raises:
        Unavailable: no coremltools here.
        TargetError: stage "inspect", for a corrupt or foreign package.
    """
    if reason := missing(path):
        raise TargetError("inspect", reason)
    if reason := unavailable_reason():
        raise Unavailable("inspect", reason)
    try:
        spec, operations = load_operations(path)
        return _facts(path, spec, operations)
    except Exception as error:  # the loader raises whatever a damaged protobuf or weights file makes it meet
        cause = f"{path.name} is damaged or not an ML Program ({typed_line(error, 300)}): convert again"
        raise TargetError("inspect", cause) from error


def load_operations(path: Path) -> tuple[Any, list[Any]]:
    """The package's Model protobuf, and the MIL operations of its main function in order."""
    spec, function = mil.load_main(path)
    return spec, list(function.operations)


def _facts(path: Path, spec: Any, main: list[Any]) -> GraphFacts:
    operations = list(mil.walk(main))
    size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    trained = weights(operations)
    floats = tuple(weight.name for weight in trained if weight.stored in FLOAT)
    computing = [op for op in operations if op.op_type != "const"]
    return GraphFacts(
        size_bytes=size_bytes,
        inputs=tuple(_tensor_spec(feature) for feature in spec.description.input),
        outputs=tuple(_tensor_spec(feature) for feature in spec.description.output),
        operators=dict(Counter(op.op_type for op in computing).most_common()),
        delegated=None,
        fallback=None,
        partitions=None,
        int8_weights=sum(weight.stored in INT8 for weight in trained),
        float_weights=len(floats),
        float_weight_names=floats,
        quant_params=tuple(_quant_params(operations)),
        operators_by_dtype=dict(Counter(map(mil.typed, computing)).most_common()),
        weights_by_dtype=dict(Counter(weight.stored for weight in trained).most_common()),
        cautions=tuple(_cautions(spec, operations, size_bytes)),
    )


def _cautions(spec: Any, operations: list[Any], size_bytes: int) -> Iterator[str]:
    """Wrong results first, then wrong units."""
    if encoding := encodings.caution(operations):
        yield encoding
    yield from half_precision.cautions(operations)
    yield from neural_engine.cautions(spec, operations, size_bytes)


def _quant_params(operations: list[Any]) -> Iterator[QuantParams]:
    for operation in operations:
        if operation.op_type not in _QUANTIZING or operation.scale.val is None:
            continue
        scale = np.atleast_1d(np.asarray(operation.scale.val, dtype=np.float64)) * _divided_out(operation)
        offset = "offset" if operation.op_type == "constexpr_blockwise_shift_scale" else "zero_point"
        stored = operation.inputs.get(offset)
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
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        colours = image.ColorSpace.Name(image.colorSpace).lower()
        channels = 1 if colours.startswith("grayscale") else 3
        return TensorSpec(feature.name, (1, channels, int(image.height), int(image.width)), f"image {colours}")
    if kind != "multiArrayType":  # what a classifier gives: a label, and a dictionary of probabilities
        return TensorSpec(feature.name, (), kind.removesuffix("Type").lower())
    array = feature.type.multiArrayType
    names = {v: k.lower() for k, v in array.ArrayDataType.items()}
    return TensorSpec(feature.name, tuple(int(size) for size in array.shape), names[array.dataType])
