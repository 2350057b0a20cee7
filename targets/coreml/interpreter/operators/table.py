"""Type of a MIL operator in, the function that computes it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from targets.coreml.interpreter.operators import (
    activations,
    classify,
    elementwise,
    indexing,
    normalization,
    pooling,
    products,
    quantization,
    reductions,
    resizing,
    shapes,
)

Operator = Callable[..., Any]

_MODULES = {
    elementwise: "add sub mul real_div floor_div mod pow maximum minimum equal not_equal less less_equal greater "
    "greater_equal logical_and logical_or logical_xor logical_not select abs ceil floor round sign exp exp2 log sqrt "
    "rsqrt inverse square sin cos tan sinh cosh tanh asin acos atan atanh erf clip threshold cast",
    activations: "relu relu6 clamped_relu leaky_relu prelu thresholded_relu elu gelu sigmoid sigmoid_hard silu "
    "softplus softplus_parametric softsign scaled_tanh linear_activation softmax",
    products: "linear matmul einsum scaled_dot_product_attention conv conv_transpose",
    normalization: "batch_norm layer_norm instance_norm l2_norm",
    pooling: "avg_pool l2_pool max_pool",
    reductions: "reduce_sum reduce_mean reduce_prod reduce_max reduce_min reduce_l1_norm reduce_l2_norm "
    "reduce_sum_square reduce_log_sum reduce_log_sum_exp reduce_argmax reduce_argmin cumsum",
    shapes: "identity reshape transpose expand_dims squeeze concat split stack tile reverse pad pixel_shuffle "
    "pixel_unshuffle depth_to_space space_to_depth band_part sliding_windows shape fill fill_like range_1d",
    indexing: "slice_by_index slice_by_size gather gather_along_axis gather_nd one_hot topk argsort",
    resizing: "upsample_nearest_neighbor resize_nearest_neighbor upsample_bilinear resize_bilinear",
    quantization: "quantize dequantize constexpr_affine_dequantize constexpr_blockwise_shift_scale constexpr_cast "
    "constexpr_lut_to_dense constexpr_sparse_to_dense",
    classify: "classify",
}
OPERATORS: dict[str, Operator] = {
    name: getattr(module, name) for module, names in _MODULES.items() for name in names.split()
}

#: Input of MIL -> parameter of the function, where MIL's name is taken.
RENAMED: dict[str, dict[str, str]] = {"select": {"a": "x", "b": "y"}}

#: Results are elements of the inputs (or zeros): there is nothing to round.
MOVES = frozenset(
    {
        *_MODULES[shapes].split(),
        *_MODULES[indexing].split(),
        *("abs", "clip", "maximum", "max_pool", "minimum", "reduce_max", "reduce_min"),
        *("relu", "relu6", "select", "threshold"),
    }
)
