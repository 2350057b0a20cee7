"""Passes over the main graph of a TFLite model after the converter.

Float where no delegate computes in int8, products of two activations as such, short names.

Work around what litert-torch does wrong with int16 activations: operators and biases without int16 kernels.

The converter merges quantize(f(dequantize(x))) into one integer operator for every f that TFLite knows, and then
stops on those that have no int16 kernel (GELU). A second input that nothing can be known about, added between, keeps
it from that. Afterwards additions and input are taken out again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from targets.program import DEQUANTIZE_OPS, QUANTIZE_OPS
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
from targets.types import TargetError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node


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
            move_signature(model, "inputs", index, outer)
    for position, index in enumerate(graph.outputs):
        if is_integer(graph.tensors[index]):
            outer = _float_twin(graph, index)
            graph.operators.append(_operator(model, codes.DEQUANTIZE, index, outer))
            graph.outputs[position] = outer
            move_signature(model, "outputs", index, outer)


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
    # Of DEQUANTIZE the first version with int8; the second of others only adds input types. RESHAPE has one.
    opcode.version = 1 if builtin == schema.BuiltinOperator.RESHAPE else 2
    model.operatorCodes.append(opcode)
    return len(model.operatorCodes) - 1


def move_signature(model: Model, side: str, old: int, new: int) -> None:
    for signature in model.signatureDefs or []:
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new


BARRIER = "barrier"
#: Operators with int16 activations in the converter and in the runtimes, of those that this project quantizes.
_INT16 = ("aten.linear", "aten.conv2d", "aten.add", "aten.relu", "aten.relu_", "aten.hardtanh", "aten.hardtanh_")
_COPIES = ("aten.flatten", "aten.reshape", "aten.view", "aten.permute", "aten.transpose", "aten.slice")
# Operators whose int16 kernels refuse 32-bit biases (tflite/kernels/depthwise_conv.cc); FULLY_CONNECTED takes both.
_WIDE_BIASES = ("CONV_2D", "DEPTHWISE_CONV_2D")
_BIAS_INPUT = 2


def with_barriers(program: ExportedProgram) -> torch.nn.Module:
    """(images [1, 3, H, W], barrier [1] of zero) -> what `program` gives for the images.

    The barrier is added to every dequantized activation, or copy of one, that an operator without int16 kernel reads,
    and to what such an operator gives where it is quantized.
    """
    import torch
    from torch.fx.graph import CodeGen

    module = program.module()
    graph = module.graph
    image = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(image):
        barrier = graph.placeholder(BARRIER)
    # What the converter has as int16: it moves dequantize operators down, behind copies, and quantize operators up.
    integer: set[Node] = set()
    guarded: list[tuple[Node, Node]] = []  # value, reader
    for node in graph.nodes:
        if str(node.target) == DEQUANTIZE_OPS[0] or (_kind(node) in _COPIES and node.args[0] in integer):
            integer.add(node)
            guarded += [(node, user) for user in node.users if not _is_int16(user)]
        elif (
            str(node.target) == QUANTIZE_OPS[0]
            and node.args[0] not in integer
            and _kind(node.args[0]) not in _INT16
            and node.args[0] is not image
        ):
            guarded.append((node.args[0], node))
    for value, reader in guarded:
        with graph.inserting_before(reader):
            reader.replace_input_with(value, graph.call_function(torch.ops.aten.add.Tensor, (value, barrier)))
    graph.set_codegen(CodeGen())  # that of an exported program has the one input that it was exported with
    return torch.fx.GraphModule(module, graph)


def _kind(node: Node) -> str:
    """The operator without its overload: "aten.add"."""
    return str(node.target).rpartition(".")[0]


def _is_int16(node: Node) -> bool:
    return _kind(node) in (*_INT16, *_COPIES) or str(node.target) in QUANTIZE_OPS or node.op == "output"


def remove_barriers(model: Model) -> None:
    """Take the additions and the second input out of the main graph, and out of its signatures.

    Raises:
        TargetError: stage "convert", the barrier feeds something else: the converter did more with it than to add it.
    """
    graph = model.subgraphs[0]
    (barrier,) = [index for index in graph.inputs if list(graph.tensors[index].shape) == [1]]
    barriers = {int(barrier)}  # and the same in other shapes
    replaced: dict[int, int] = {}
    kept = []
    for operator in graph.operators:
        operator.inputs = [replaced.get(int(index), int(index)) for index in operator.inputs]
        others = [index for index in operator.inputs if index not in barriers]
        name, result = operator_name(model, operator), int(operator.outputs[0])
        if len(others) == len(operator.inputs):
            kept.append(operator)
        elif name == "RESHAPE":
            barriers.add(result)
        elif name == "ADD" and len(others) == 1 and operator.builtinOptions.fusedActivationFunction:
            _keep_activation_alone(model, operator, others)
            kept.append(operator)
        elif name == "ADD" and len(others) == 1:
            replaced[result] = others[0]
        else:
            raise TargetError("convert", f"{name} reads the barrier, not an ADD: this litert-torch does more with it")
    graph.operators = kept
    graph.outputs = [replaced.get(int(index), int(index)) for index in graph.outputs]
    graph.inputs = [int(index) for index in graph.inputs if index != barrier]
    for signature in model.signatureDefs or []:
        signature.inputs = [entry for entry in signature.inputs if entry.tensorIndex != barrier]


def _keep_activation_alone(model: Model, operator: Operator, inputs: list[int]) -> None:
    """An addition with a clamp behind it becomes the clamp."""
    from ai_edge_litert import schema_py_generated as schema

    activations = vars(schema.ActivationFunctionType)
    name = next(n for n, code in activations.items() if code == operator.builtinOptions.fusedActivationFunction)
    operator.opcodeIndex = opcode_index(model, vars(schema.BuiltinOperator)[name])
    operator.inputs, operator.builtinOptionsType, operator.builtinOptions = inputs, schema.BuiltinOptions.NONE, None


def widen_biases(model: Model) -> None:
    """int32 biases of convolutions with int16 activations as int64, the same values and scales."""
    from ai_edge_litert import schema_py_generated as schema

    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_name(model, operator) not in _WIDE_BIASES or len(operator.inputs) <= _BIAS_INPUT:
                continue
            bias = graph.tensors[operator.inputs[_BIAS_INPUT]]
            if type_name(graph.tensors[operator.inputs[0]]) == "INT16" and type_name(bias) == "INT32":
                values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32).astype(np.int64)
                stored = schema.BufferT()
                stored.data = values.view(np.uint8)
                bias.buffer, bias.type = len(model.buffers), schema.TensorType.INT64
                model.buffers.append(stored)
