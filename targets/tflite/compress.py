"""Give a float TFLite file integer weights, and where asked for activations that are quantized while it runs.

ai-edge-quantizer does it, with one rule for each operator that holds something trained: a rule for all operators would
also take the constant rows with which sums are computed, and depthwise convolutions, of which the delegate does not
take the dynamic ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from targets.sdk import typed_line
from targets.tflite import flatbuffer
from targets.tflite.schemes import SCHEMES
from targets.types import DYNAMIC, Precision, TargetError

#: Operators that hold a layer's weights, and the position of the weight among their inputs.
WEIGHT_INPUT = {"FULLY_CONNECTED": 1, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "BATCH_MATMUL": 1}
# ai-edge-quantizer's name of an operator, where it is not the schema's.
_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
#: Operators that XNNPACK takes with float activations and int8 weights, and quantizes the activations of itself.
_DYNAMIC = ("FULLY_CONNECTED", "CONV_2D")
#: Operators that may have int4 weights, with a scale for each output channel.
_INT4 = ("FULLY_CONNECTED", "CONV_2D")
#: Operators whose int4 weights may have a scale for each group of input channels.
_GROUPS = ("FULLY_CONNECTED",)


@dataclass(frozen=True)
class Weight:
    """An operator that holds something trained.

    Attributes:
        operator: as the schema calls it.
        result: name of the tensor that it computes, by which a rule finds it.
        shape: of its weight; the last axis of a FULLY_CONNECTED's is the input channels.
    """

    operator: str
    result: str
    shape: tuple[int, ...]


def compress(content: bytes, precision: Precision, asked_group_size: int | None = None) -> bytes:
    """
    - w8, w4: activations stay float32. int4 has one scale for each output channel; depthwise convolutions become int8.
    - int8-dynamic, w4a8-dynamic: FULLY_CONNECTED and CONV_2D alone. int4 weights have a scale for each group of input
      channels; where these do not divide, and in convolutions, weights become int8.

    All symmetric. A channel's or group's largest weight decides its scale.

    Raises:
        TargetError: stage "convert", the quantizer refuses, or there is nothing to compress.
    """
    from ai_edge_quantizer import quantizer

    size = SCHEMES.group_size(precision, asked_group_size)
    compressing = quantizer.Quantizer(content)
    found = [w for w in weights(content) if precision not in DYNAMIC or w.operator in _DYNAMIC]
    if not found:
        raise TargetError(
            "convert", f"no operator of the file has weights that {precision} compresses: convert to fp32"
        )
    try:
        for weight in found:
            _add_rule(compressing, weight, precision, size)
        return bytes(compressing.quantize().quantized_model)
    except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
        cause = f"ai-edge-quantizer cannot make {precision}: {typed_line(error, 400)}"
        raise TargetError("convert", cause) from error


def weights(content: bytes) -> Iterator[Weight]:
    """The operators of the main graph whose weight is a trained constant."""
    model = flatbuffer.parse(content, "the converted file")
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = flatbuffer.operator_name(model, operator)
        if name in WEIGHT_INPUT:
            weight = graph.tensors[operator.inputs[WEIGHT_INPUT[name]]]
            if flatbuffer.is_trained_constant(model, weight):
                result = graph.tensors[operator.outputs[0]].name.decode()
                yield Weight(name, result, tuple(int(n) for n in weight.shape))


# Any: ai-edge-quantizer's Quantizer is untyped.
def _add_rule(compressing: object, weight: Weight, precision: Precision, size: int) -> None:
    from ai_edge_quantizer import qtyping

    in_groups = precision == "w4a8-dynamic"
    is_int4 = precision == "w4" and weight.operator in _INT4
    if in_groups and weight.operator in _GROUPS and weight.shape[-1] % size == 0:
        bits, granularity = 4, qtyping.QuantGranularity(f"BLOCKWISE_{size}")
    else:
        bits, granularity = 4 if is_int4 else 8, qtyping.QuantGranularity.CHANNELWISE
    kind = "add_dynamic_config" if precision in DYNAMIC else "add_weight_only_config"
    getattr(compressing, kind)(
        regex=f"^{re.escape(weight.result)};?$",  # the quantizer searches for it in the names of results
        operation_name=qtyping.TFLOperationName(_NAMES.get(weight.operator, weight.operator)),
        num_bits=bits,
        granularity=granularity,
    )
