"""Export the float model, insert fake quantization for QAT, and convert the trained graph to the QDQ program.

torchao's BatchNorm fusion is mended here: it writes 1e-5 and 0.1 over epsilon and momentum of every BatchNorm that it
fuses (its qat_utils.py: "TODO: allow setting eps"), which a network with other ones does not survive. It is also made
cheap to train: its division of a convolution's output is one of the weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

from pipeline.files import publish
from pipeline.quantization.integer import settle
from pipeline.quantization.quantizer import EdgeQuantizer, Scheme
from pipeline.quantization.ranges import count_once, freeze_learned, restore_sites
from pipeline.run.facts import MovedNorm

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
            module.num_batches_tracked = None  # only a counter, which would be an in-place add in every artifact
            _lift_zero_gains(module)
    exported = export(model, input_size).module()
    norms = batch_norms(exported)
    prepared = prepare_qat_pt2e(exported, EdgeQuantizer(scheme))
    set_batch_norms(prepared, norms)
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


def to_qdq_program(graph: GraphModule, input_size: tuple[int, int, int], settled: bool = False) -> ExportedProgram:
    """The QDQ program of a trained graph: explicit quantize / dequantize pairs, BatchNorm folded, weights unfolded.

    Args:
        settled: with biases on the int32 grid of the runtimes (`pipeline.quantization.integer.settle`).

    The given graph is not changed; the program lives on the CPU in eval mode.
    """
    trained = copy.deepcopy(graph)
    freeze_learned(trained)  # on the device they were trained on: another one may round their exponential otherwise
    trained.cpu()
    set_training(trained, False)
    divide_outputs(trained)
    move_epsilon(trained)
    restore_sites(trained)
    converted = convert_pt2e(trained, fold_quantize=False)
    _drop_dropout(converted)
    if settled:
        settle(converted)
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


@dataclass(frozen=True)
class BatchNormOptions:
    """Of one BatchNorm: the weight of a batch in the running statistics, and what is added to a variance."""

    momentum: float
    epsilon: float


#: Positions of the arguments of aten.batch_norm.
VARIANCE, MOMENTUM, EPSILON = 4, 6, 7
FUSED_EPSILON = 1e-5  # torchao's


def batch_norms(graph: GraphModule) -> dict[str, BatchNormOptions]:
    """By the name of the running variance: once, however many operators share it."""
    nodes = _batch_norm_nodes(graph)
    return {str(n.args[VARIANCE].target): BatchNormOptions(n.args[MOMENTUM], n.args[EPSILON]) for n in nodes}


def set_batch_norms(graph: GraphModule, options: Mapping[str, BatchNormOptions]) -> None:
    """Give the BatchNorms of a graph of torchao's `prepare_qat_pt2e`, and the weights scaled for them, these options.

    Args:
        options: by the name of the running variance, as of `batch_norms`.
    """
    for node in _batch_norm_nodes(graph):
        variance = node.args[VARIANCE]
        own = options[str(variance.target)]
        node.update_arg(MOMENTUM, own.momentum)
        node.update_arg(EPSILON, own.epsilon)
        for user in list(variance.users):
            if user.target == aten.add.Tensor:  # in the standard deviation that the weight is multiplied with
                user.update_arg(1, own.epsilon)
    graph.recompile()


#: The mean of equal statistics over several processes differs from them by float32's rounding, 6e-8; training by more.
MOVED = 1e-5


class Statistics(NamedTuple):
    """Running mean and standard deviation [C] in float64, epsilon in it."""

    mean: Tensor
    deviation: Tensor


def norm_statistics(graph: GraphModule) -> dict[str, Statistics]:
    """Those of each BatchNorm of a graph of `prepare`, as they are now, by the layer's name."""
    found = {}
    for variance, options in batch_norms(graph).items():
        name = variance.removesuffix(".running_var")
        mean = graph.get_buffer(f"{name}.running_mean").double().cpu()
        found[name] = Statistics(mean, (graph.get_buffer(variance).double().cpu() + options.epsilon).sqrt())
    return found


def moved_norms(before: dict[str, Statistics], after: dict[str, Statistics]) -> tuple[MovedNorm, ...]:
    """How far a training moved the layers whose statistics differ, the one that moved most first."""
    moved = []
    for name, (mean, deviation) in before.items():
        shift = ((after[name].mean - mean).abs() / deviation).mean()
        log_ratio = 2 * (after[name].deviation / deviation).log().abs().mean()
        moved.append(MovedNorm(name, float(shift), float(log_ratio)))
    moved.sort(key=lambda m: -(m.mean_shift + m.variance_log_ratio))
    return tuple(m for m in moved if m.mean_shift + m.variance_log_ratio > MOVED)


def move_epsilon(graph: GraphModule) -> None:
    """In evaluation mode: what is added to a variance becomes FUSED_EPSILON, and the variance grows by the rest.

    torchao's `convert_pt2e` folds every BatchNorm as if it had that.
    """
    norms = batch_norms(graph)
    with torch.no_grad():
        for name, own in norms.items():
            graph.get_buffer(name).add_(own.epsilon - FUSED_EPSILON)
    set_batch_norms(graph, {name: replace(own, epsilon=FUSED_EPSILON) for name, own in norms.items()})


def _batch_norm_nodes(graph: GraphModule) -> list[Any]:
    return [node for node in graph.graph.nodes if node.target == aten.batch_norm.default]


WEIGHT_SHAPE, OUTPUT_SHAPE = [-1, 1, 1, 1], [1, -1, 1, 1]


def divide_weights(graph: GraphModule) -> int:
    """In place, of a graph of torchao's `prepare_qat_pt2e`; returns how many convolutions were changed."""
    found = [(conv, scale) for conv in graph.graph.nodes if (scale := _scale_of_weight(conv)) is not None]
    changed = 0
    for conv, scale in found:
        division = next(iter(conv.users))
        if len(conv.users) != 1 or not _divides(division, conv, scale.args[0]):
            continue
        with graph.graph.inserting_before(conv):
            weight = graph.graph.call_function(aten.div.Tensor, (conv.args[1], scale))
        weight.meta = dict(division.meta)
        conv.update_arg(1, weight)
        reshaped = division.args[1]
        assert isinstance(reshaped, Node)
        division.replace_all_uses_with(conv)
        graph.graph.erase_node(division)
        _erase_unused(graph, reshaped)
        changed += 1
    _recompile(graph, changed)
    return changed


def divide_outputs(graph: GraphModule) -> int:
    """The inverse, which torchao's `convert_pt2e` needs: it looks for the division it has made."""
    changed = 0
    for conv in list(graph.graph.nodes):
        weight = conv.args[1] if conv.target == aten.conv2d.default else None
        if not isinstance(weight, Node) or weight.target != aten.div.Tensor:
            continue
        rounded, scale = weight.args
        assert isinstance(scale, Node)
        conv.update_arg(1, rounded)
        with graph.graph.inserting_after(conv):
            reshaped = graph.graph.call_function(aten.reshape.default, (scale.args[0], OUTPUT_SHAPE))
        with graph.graph.inserting_after(reshaped):
            division = graph.graph.call_function(aten.div.Tensor, (conv, reshaped))
        reshaped.meta, division.meta = dict(scale.meta), dict(weight.meta)
        conv.replace_all_uses_with(division, delete_user_cb=lambda user, own=division: user is not own)
        _erase_unused(graph, weight)
        changed += 1
    _recompile(graph, changed)
    return changed


def _scale_of_weight(conv: Node) -> Node | None:
    """s of conv(x, Q(w s)), in the shape of a weight; None for another node."""
    rounded = conv.args[1] if conv.target == aten.conv2d.default else None
    if not isinstance(rounded, Node) or rounded.op != "call_module":
        return None
    scaled = rounded.args[0]
    if not isinstance(scaled, Node) or scaled.target != aten.mul.Tensor:
        return None
    scale = scaled.args[1]
    return scale if isinstance(scale, Node) and _reshapes(scale, WEIGHT_SHAPE) else None


def _divides(division: Node, conv: Node, scale: object) -> bool:
    if division.target != aten.div.Tensor or division.args[0] is not conv:
        return False
    by = division.args[1]
    return isinstance(by, Node) and _reshapes(by, OUTPUT_SHAPE) and by.args[0] is scale


def _reshapes(node: Node, shape: list[int]) -> bool:
    return node.target == aten.reshape.default and node.args[1] == shape


def _erase_unused(graph: GraphModule, node: Node) -> None:
    if not node.users:
        graph.graph.erase_node(node)


def _recompile(graph: GraphModule, changed: int) -> None:
    if changed:
        graph.graph.lint()
        graph.recompile()
