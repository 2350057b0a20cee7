"""Work around what litert-torch does wrong with int16 activations: operators and biases without int16 kernels.

The converter merges quantize(f(dequantize(x))) into one integer operator for every f that TFLite knows, and then stops
on those that have no int16 kernel (GELU). A second input that nothing can be known about, added between, keeps it from
that. Afterwards additions and input are taken out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from targets.program import DEQUANTIZE_OPS, QUANTIZE_OPS
from targets.tflite.flatbuffer import Model, Operator, operator_name, type_name
from targets.tflite.passes import opcode_index
from targets.types import TargetError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

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
