"""Load the MIL program of an `.mlpackage` through coremltools, look into its operations, and name them in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from targets.words import first

#: Names or operators that a sentence lists before it counts the rest.
_LISTED = 6


def load_main(path: Path) -> tuple[Any, Any]:
    """The package's Model protobuf, and its main function as PyMIL with the weights file read.

    Raises:
        Exception: whatever coremltools' loader meets in a damaged package.
    """
    import coremltools as ct

    spec, program = load_model(ct.models.MLModel(str(path), skip_model_load=True))
    return spec, program.functions["main"]


def load_model(model: Any) -> tuple[Any, Any]:
    """The Model protobuf of an MLModel, and its program as PyMIL."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    return spec, load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)


# Any: coremltools' operations and variables are untyped, and those of its compute plan have the same names.
def walk(operations: Iterable[Any]) -> Iterator[Any]:
    """All operations in order, each before those of the blocks that it holds (branches, bodies of loops)."""
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from walk(block.operations)


def inputs(operation: Any) -> Iterator[tuple[str, Any]]:
    """(parameter, variable) of what an operation reads, lists of variables (concat) flattened."""
    for parameter, value in operation.inputs.items():
        for variable in value if isinstance(value, (list, tuple)) else [value]:
            if variable is not None:
                yield parameter, variable


def is_constant(variable: Any) -> bool:
    """Whether the file holds the variable, as it is or compressed."""
    return variable.op is not None and (variable.op.op_type == "const" or variable.op.op_type.startswith("constexpr_"))


def is_tensor(variable: Any) -> bool:
    """Whether a variable has a shape: a scalar has one too, lists and dictionaries have none."""
    from coremltools.converters.mil.mil import types

    return bool(types.is_tensor(variable.sym_type) or types.is_scalar(variable.sym_type))


def dtype(variable: Any) -> str:
    """MIL's name for the element type: "fp16", "int8", "bool"; "list", "dict" and the like for what is no tensor."""
    from coremltools.converters.mil.mil import types

    kind = variable.sym_type
    for is_kind, name in ((types.is_list, "list"), (types.is_dict, "dict"), (types.is_tuple, "tuple")):
        if is_kind(kind):
            return name
    return str(types.builtin_to_string(variable.dtype if types.is_tensor(kind) else kind))


def typed(operation: Any) -> str:
    """Type and dtype of the first output: "conv fp16"."""
    return f"{operation.op_type} {dtype(operation.outputs[0])}" if operation.outputs else str(operation.op_type)


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    return first(list(dict.fromkeys(names)), _LISTED)


def tallied(operations: Iterable[Any]) -> str:
    """Operators by type, the most frequent first: "linear ×29, conv ×3"."""
    counts = Counter(operation.op_type for operation in operations)
    return listed(f"{name} ×{count}" for name, count in counts.most_common())
