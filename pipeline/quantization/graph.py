"""The exported graph through QAT: float model in, fake-quantized training graph and QDQ program out."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

from pipeline.files import publish
from pipeline.quantization.batch_norm_scale import divide_outputs, divide_weights
from pipeline.quantization.quantizer import EdgeQuantizer, Scheme
from pipeline.quantization.ranges import count_once, freeze_learned, restore_sites

aten = torch.ops.aten
#: Changes a normalised activation by at most a millionth, and stays far from float32's smallest numbers.
SMALLEST_GAIN = 1e-6
#: Position of the `training` argument of the operators that behave differently in training.
TRAINING_ARGUMENT = {aten.batch_norm.default: 5, aten.dropout.default: 2, aten.dropout_.default: 2}


def export(model: nn.Module, input_size: tuple[int, int, int]) -> ExportedProgram:
    """`torch.export` with a dynamic batch: images [B, 3, H, W] -> logits [B, classes].

    The mode of the model (train or eval) is part of the program.
    """
    # Two images: a batch of one would be specialised to one by torch.export.
    example = torch.zeros(2, *input_size, device=next(model.parameters()).device)
    return torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch", min=1, max=4096)},))


def prepare(model: nn.Module, input_size: tuple[int, int, int], scheme: Scheme) -> GraphModule:
    """A trainable graph with fake quantization after `scheme`; BatchNorm is fused as torchao's QAT does.

    The given model is not changed. Parameters keep their names.
    """
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # Only a counter, which would be an in-place add in every artifact; momentum is what timm's models use.
            module.num_batches_tracked = None
            _lift_zero_gains(module)
    program = export(model, input_size)
    prepared = prepare_qat_pt2e(program.module(), EdgeQuantizer(scheme))
    divide_weights(prepared)
    count_once(prepared)
    set_training(prepared, False)
    return prepared


def _lift_zero_gains(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """torchao's QAT BatchNorm divides by gain / standard deviation: a gain of zero would make the output NaN.

    Zero gains are common: residual branches start with them (timm's `zero_init_last`), pruning leaves them.
    """
    if norm.weight is not None:
        with torch.no_grad():
            norm.weight[norm.weight.abs() < SMALLEST_GAIN] = SMALLEST_GAIN


def set_training(graph: GraphModule, training: bool, freeze_batch_norm: bool = False, dropout: bool = True) -> None:
    """Switch dropout and BatchNorm of an exported graph, where `.train()` and `.eval()` have no effect.

    Args:
        freeze_batch_norm: keep BatchNorm on its running statistics although the graph is training.
        dropout: False keeps dropout off although the graph is training.
    """
    changed = False
    for node in graph.graph.nodes:
        position = TRAINING_ARGUMENT.get(node.target)
        if position is None:
            continue
        still = freeze_batch_norm if node.target == aten.batch_norm.default else not dropout
        value = training and not still
        if node.args[position] != value:
            node.update_arg(position, value)
            changed = True
    if changed:
        graph.recompile()
    graph.training = training


def set_observers(graph: nn.Module, enabled: bool) -> None:
    """Let the observers of activations follow what they see, or freeze their scales.

    Those of weights always follow: with an averaging constant of 1 their scale is that of the current weight.
    """
    for module in graph.modules():
        if isinstance(module, FakeQuantize) and not module.is_per_channel:
            (module.enable_observer if enabled else module.disable_observer)()


def set_fake_quantization(graph: nn.Module, enabled: bool) -> None:
    """Round to int8 in the forward pass, or run in float (observers work either way)."""
    for module in graph.modules():
        if isinstance(module, FakeQuantize):
            (module.enable_fake_quant if enabled else module.disable_fake_quant)()


def to_qdq_program(graph: GraphModule, input_size: tuple[int, int, int]) -> ExportedProgram:
    """The QDQ program of a trained graph: explicit quantize / dequantize pairs, BatchNorm folded, weights unfolded.

    The given graph is not changed; the program lives on the CPU in eval mode.
    """
    trained = copy.deepcopy(graph)
    freeze_learned(trained)  # on the device they were trained on: another one may round their exponential otherwise
    trained.cpu()
    set_training(trained, False)
    divide_outputs(trained)
    restore_sites(trained)
    converted = convert_pt2e(trained, fold_quantize=False)
    _drop_dropout(converted)
    with torch.no_grad():
        return export(converted, input_size)


def _drop_dropout(graph: GraphModule) -> None:
    """Dropout in eval mode is the identity; not every converter knows that."""
    for node in list(graph.graph.nodes):
        if node.target in (aten.dropout.default, aten.dropout_.default):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def save_program(program: ExportedProgram, path: Path) -> None:
    """`torch.export.save`, atomically."""
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, temporary)
    publish(temporary, path)
