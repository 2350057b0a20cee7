"""Passes over the main graph of a TFLite model after the converter.

Float where no delegate computes in int8, products of two activations as such, short names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from targets.tflite.flatbuffer import (
    CONSTANT,
    Model,
    Operator,
    Subgraph,
    is_int8,
    is_integer,
    module_path,
    operator_name,
    type_name,
)


def make_boundary_float(model: Model) -> None:
    """Put QUANTIZE before integer inputs and DEQUANTIZE after integer outputs.

    The converter drops a quantize that reads an input and a dequantize that writes an output. Back in place, every
    artifact takes and gives float32, and the time of the conversion is measured like in the other files.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    codes = schema.BuiltinOperator
    for position, index in enumerate(graph.inputs):
        if is_integer(graph.tensors[index]):
            outer = _float_twin(graph, index)
            graph.operators.insert(0, _operator(model, codes.QUANTIZE, outer, index))
            graph.inputs[position] = outer
            _move_signature(model, "inputs", index, outer)
    for position, index in enumerate(graph.outputs):
        if is_integer(graph.tensors[index]):
            outer = _float_twin(graph, index)
            graph.operators.append(_operator(model, codes.DEQUANTIZE, index, outer))
            graph.outputs[position] = outer
            _move_signature(model, "outputs", index, outer)


def make_operators_float(model: Model, names: Collection[str]) -> bool:
    """Put DEQUANTIZE before and QUANTIZE after the int8 operators of these names; whether anything was changed.

    The converter merges quantize(f(dequantize(x))) into an int8 operator for every f that TFLite has one for, also
    where no delegate takes it. The scales stay what the program says.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, codes = model.subgraphs[0], schema.BuiltinOperator
    operators = []
    for operator in graph.operators:
        before, after = [], []
        if operator_name(model, operator) in names and is_int8(graph.tensors[operator.outputs[0]]):
            for position, index in enumerate(operator.inputs):
                if is_int8(graph.tensors[index]):
                    operator.inputs[position] = _float_copy(graph, index)
                    before.append(_operator(model, codes.DEQUANTIZE, index, operator.inputs[position]))
            for position, index in enumerate(operator.outputs):
                operator.outputs[position] = _float_copy(graph, index)
                after.append(_operator(model, codes.QUANTIZE, operator.outputs[position], index))
        operators += [*before, operator, *after]
    changed = len(operators) > len(graph.operators)
    graph.operators = operators
    return changed


def make_products_of_activations(model: Model) -> bool:
    """FULLY_CONNECTED with a computed float weight becomes BATCH_MATMUL; whether anything was changed.

    The converter writes a product of two activations so when one of them comes straight out of an int8 layer. No
    delegate takes weights that are not constant, but each takes the product.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, changed = model.subgraphs[0], False
    for operator in graph.operators:
        if operator_name(model, operator) != "FULLY_CONNECTED":
            continue
        weight = graph.tensors[operator.inputs[1]]
        data = model.buffers[weight.buffer].data
        is_constant = data is not None and len(data) > 0
        has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
        is_fused = operator.builtinOptions.fusedActivationFunction != schema.ActivationFunctionType.NONE
        if is_constant or has_bias or is_fused or type_name(weight) != "FLOAT32":
            continue
        operator.opcodeIndex = opcode_index(model, schema.BuiltinOperator.BATCH_MATMUL)
        operator.inputs = list(operator.inputs[:2])
        operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
        operator.builtinOptions = schema.BatchMatMulOptionsT()
        operator.builtinOptions.adjY = True  # weights are stored [out, in]
        changed = True
    return changed


def shorten_names(model: Model) -> None:
    """Leave the module path of each tensor's name, and its number: the converter writes every class on the way.

    "pkg.Net/pkg.Stage_stage1/torch.nn.modules.linear.Linear_k;" becomes "stage1.k;1". What enters and leaves the model
    keeps its name.
    """
    graph = model.subgraphs[0]
    seen: Counter[str] = Counter()
    for index, tensor in enumerate(graph.tensors):
        if index not in graph.inputs and index not in graph.outputs:
            name = module_path(tensor.name.decode()) or CONSTANT
            seen[name] += 1
            tensor.name = f"{name};{seen[name]}".encode()


def _float_twin(graph: Subgraph, index: int) -> int:
    """Index of a new float32 tensor that takes over the name of tensor `index`."""
    inner = graph.tensors[index]
    twin = _float_copy(graph, index)
    graph.tensors[twin].name, inner.name = inner.name, inner.name + b"_quantized"
    return twin


def _float_copy(graph: Subgraph, index: int) -> int:
    """Index of a new float32 tensor of the shape of tensor `index`."""
    from ai_edge_litert import schema_py_generated as schema

    inner, outer = graph.tensors[index], schema.TensorT()
    outer.name = inner.name + b"_float"
    outer.type, outer.shape, outer.shapeSignature = schema.TensorType.FLOAT32, inner.shape, inner.shapeSignature
    outer.hasRank = inner.hasRank
    graph.tensors.append(outer)
    return len(graph.tensors) - 1


def _operator(model: Model, builtin: int, source: int, result: int) -> Operator:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = opcode_index(model, builtin)
    operator.inputs, operator.outputs = [source], [result]
    return operator


def opcode_index(model: Model, builtin: int) -> int:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    for index, opcode in enumerate(model.operatorCodes):
        if flatbuffer_utils.get_builtin_code_from_operator_code(opcode) == builtin:
            return index
    opcode = schema.OperatorCodeT()
    opcode.builtinCode = opcode.deprecatedBuiltinCode = builtin  # both are below 127, where the two fields agree
    # Of DEQUANTIZE the first version with int8; QUANTIZE's and BATCH_MATMUL's second only add input types.
    opcode.version = 2
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def _move_signature(model: Model, side: str, old: int, new: int) -> None:
    for signature in model.signatureDefs or []:
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new
