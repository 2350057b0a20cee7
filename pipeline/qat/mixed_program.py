"""A QDQ program and names of layers in, the same trained program with these layers in float out."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch.export import ExportedProgram

from pipeline.qat.float_layers import Int8Layer, QdqGraph, leave_out
from pipeline.qat.graph import export
from pipeline.qat.layer_names import check_names
from targets.program import input_shape


def named_layers(qdq: QdqGraph, names: Iterable[str]) -> tuple[Int8Layer, ...]:
    """The int8 layers called so in Scheme.float_layers; names of layers that are float already are passed over.

    Raises:
        UsageError: a name that no Linear or convolution of the program has, with the nearest one.
    """
    wanted = set(names)
    check_names(wanted, {layer.module for layer in qdq.layers} | qdq.float_names)
    return tuple(layer for layer in qdq.layers if layer.module in wanted)


def leave_float(program: ExportedProgram, names: Collection[str]) -> ExportedProgram:
    """What EdgeQuantizer would have made with these float layers and the scales that are in `program`.

    Weights and the scales of all other layers stay as they were trained. The given program is not changed.

    Raises:
        UsageError: as `named_layers`.
    """
    module = program.module()
    qdq = QdqGraph(module)
    leave_out(module, qdq.kept_float(*named_layers(qdq, names)))
    return export(module, input_shape(program))
