"""Draws of MIL operators over many values: normalisations, pooling, reductions, cumsum and topk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mil_products import RTOL, pads
from mil_programs import Draw, Generator, OneOperator, wide


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def _affine(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    """gamma and beta, one of them or none."""
    keys = draw.turn([("gamma", "beta"), (), ("gamma",), ("beta",)])
    return {key: draw.floats(shape, 0.5, 2) for key in keys}


def _normalised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def _epsilon(draw: Draw, default: float = 1e-5) -> dict[str, Any]:
    """Left out every second seed; not in half precision, where coremltools writes a default in single precision beside
    a gamma in half, and then refuses to load it.
    """
    left_out = {} if draw.dtype is np.float32 else {"epsilon": draw.dtype(default)}
    return draw.turn([left_out, {"epsilon": draw.float(0.01, 0.5)}])


def _batch_norm(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(3, 5, most=4))
    c = (x.shape[1],)
    attributes = {"mean": draw.floats(c), "variance": draw.floats(c, 0.1, 3), **_affine(draw, c), **_epsilon(draw)}
    along = {key: wide(v).reshape(-1, *[1] * (x.ndim - 2)) for key, v in attributes.items()}
    expected = (wide(x) - along["mean"]) / np.sqrt(along["variance"] + attributes.get("epsilon", 1e-5))
    expected = expected * along.get("gamma", 1) + along.get("beta", 0)
    return OneOperator(lambda x: _mb().batch_norm(x=x, **attributes), {"x": x}, draw.rounded(expected))


def _layer_norm(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(2, 5, least=2, most=5))
    along = draw.turn([(-1,), (x.ndim - 2, x.ndim - 1), tuple(range(x.ndim)), (1,), (-2, -1)])
    shape = tuple(x.shape[a] for a in along)
    attributes = {**_affine(draw, shape), **_epsilon(draw)}
    if "gamma" not in attributes:  # coremltools stops on a beta alone, and on axes left out
        attributes.pop("beta", None)
    spread = [x.shape[i] if i in {a % x.ndim for a in along} else 1 for i in range(x.ndim)]
    expected = _normalised(wide(x), along, attributes.get("epsilon", 1e-5))
    expected = expected * (wide(attributes["gamma"]).reshape(spread) if "gamma" in attributes else 1)
    expected = expected + (wide(attributes["beta"]).reshape(spread) if "beta" in attributes else 0)
    attributes["axes"] = list(along)
    return OneOperator(lambda x: _mb().layer_norm(x=x, **attributes), {"x": x}, draw.rounded(expected), RTOL)


def _instance_norm(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(3, 4, least=2, most=5))
    attributes = {**_affine(draw, (x.shape[1],)), **_epsilon(draw)}
    along = {key: wide(v).reshape(-1, *[1] * (x.ndim - 2)) for key, v in attributes.items()}
    expected = _normalised(wide(x), tuple(range(2, x.ndim)), attributes.get("epsilon", 1e-5))
    expected = expected * along.get("gamma", 1) + along.get("beta", 0)
    return OneOperator(lambda x: _mb().instance_norm(x=x, **attributes), {"x": x}, draw.rounded(expected), RTOL)


def _pool(name: str) -> Generator:
    def draw_one(draw: Draw) -> OneOperator:
        rank = draw.turn([2, 1, 2, 3])
        # the fourth: ceil mode, for which paddings are symmetric
        pad_type, ceil_mode = draw.turn(
            [("valid", False), ("same", False), ("custom", False), ("custom", True), ("same_lower", False)]
        )
        ceil_mode = ceil_mode and rank < 3
        kernel = [draw.integer(1, 3) for _ in range(rank)]
        # not above the kernel in ceil mode: whether a window beyond the data counts is documented in two ways
        strides = [draw.integer(1, k if ceil_mode else 3) for k in kernel]
        sizes = [k + draw.integer(0, 4) for k in kernel]
        x = draw.floats((draw.integer(1, 2), draw.integer(1, 3), *sizes))
        # below the kernel: a window of padding alone has no maximum
        before = [draw.integer(0, k - 1) for k in kernel]
        after = before if ceil_mode else [draw.integer(0, k - 1) for k in kernel]
        custom = [size for pair in zip(before, after, strict=True) for size in pair]
        attributes: dict[str, Any] = {"kernel_sizes": kernel, "strides": strides, "pad_type": pad_type}
        if pad_type == "custom":
            attributes["pad"] = custom
        if ceil_mode:
            attributes["ceil_mode"] = True
        excluded = name == "avg_pool" and draw.seed % 2 == 1
        if excluded:
            attributes["exclude_padding_from_average"] = True
        if pad_type == "valid" and draw.seed % 2 == 0:
            del attributes["strides"]
            strides = [1] * rank
        around = pads(pad_type, custom, sizes, kernel, strides)
        expected = _pooled(name, wide(x), kernel, strides, around, ceil_mode, excluded)
        return OneOperator(
            lambda x: getattr(_mb(), name)(x=x, **attributes),
            {"x": x},
            draw.rounded(expected),
            rtol=None if name == "max_pool" else 1e-5,
        )

    return draw_one


def _pooled(
    name: str,
    x: np.ndarray,
    kernel: list[int],
    strides: list[int],
    around: list[tuple[int, int]],
    ceil_mode: bool,
    excluded: bool,
) -> np.ndarray:
    """Window by window. In ceil mode a window may end beyond the padding; what is there counts for nothing, as in
    PyTorch, to whose ceil mode the documentation refers.
    """
    outputs = []
    for size, k, stride, (before, after) in zip(x.shape[2:], kernel, strides, around, strict=True):
        room = size + before + after - k
        count = (-(-room // stride) if ceil_mode else room // stride) + 1
        if ceil_mode and before + after > 0 and (count - 1) * stride >= size + before:
            count -= 1
        outputs.append(count)
    result = np.empty((*x.shape[:2], *outputs))
    for place in np.ndindex(*outputs):
        data, cells = [], 1
        for p, size, k, stride, (before, after) in zip(place, x.shape[2:], kernel, strides, around, strict=True):
            start = p * stride - before
            end = min(start + k, size + after)
            data.append(slice(max(start, 0), min(end, size)))
            cells *= data[-1].stop - data[-1].start if excluded else end - start
        window = x[(slice(None), slice(None), *data)].reshape(*x.shape[:2], -1)
        result[(slice(None), slice(None), *place)] = {
            "avg_pool": window.sum(-1) / cells,
            "max_pool": window.max(-1),
        }[name]
    return result


def _reduction(
    name: str,
    formula: Callable[[np.ndarray], np.ndarray],
    low: float = -4,
    high: float = 4,
    exact: bool = False,
    integers: bool = True,
) -> Generator:
    """`formula` reduces the last axis, into which the reduced ones are flattened."""

    def draw_one(draw: Draw) -> OneOperator:
        shape = draw.shape(1, 5, most=4)
        use_integers = integers and draw.seed % 4 == 3
        x = draw.integers(shape, -5, 5) if use_integers else draw.floats(shape, low, high)
        axes = sorted(draw.rng.permutation(x.ndim)[: draw.integer(1, x.ndim)].tolist())
        attributes: dict[str, Any] = {
            "axes": [a - draw.any([0, x.ndim]) for a in axes],
            "keep_dims": draw.any([True, False]),
        }
        if draw.seed % 4 == 2:  # all axes
            axes, attributes = list(range(x.ndim)), {"keep_dims": True}
        if len(axes) == x.ndim:  # a package gives no scalars
            attributes["keep_dims"] = True
        kept = [a for a in range(x.ndim) if a not in axes]
        flat = np.transpose(wide(x), [*kept, *axes]).reshape(*(x.shape[a] for a in kept), -1)
        expected = formula(flat)
        if attributes["keep_dims"]:
            expected = expected.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim)])
        if not attributes["keep_dims"] and draw.seed % 2:
            del attributes["keep_dims"]
        result = (expected.astype(np.int32),) if use_integers else draw.rounded(expected)
        return OneOperator(
            lambda x: getattr(_mb(), name)(x=x, **attributes),
            {"x": x},
            result,
            rtol=None if exact or use_integers else 1e-5,
        )

    return draw_one


def _distinct(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Which of two equal values wins is not documented."""
    count = int(np.prod(shape))
    return (draw.rng.permutation(count).reshape(shape) - count // 2).astype(draw.dtype)


def _arg(name: str, formula: Callable[..., np.ndarray]) -> Generator:
    def draw_one(draw: Draw) -> OneOperator:
        x = _distinct(draw, draw.shape(2, 5, most=4))
        attributes = draw.turn(
            [
                {"axis": draw.axis(x.ndim), "keep_dims": True},
                {},
                {"axis": draw.axis(x.ndim), "output_dtype": "uint16"},
            ]
        )
        axis = attributes.get("axis", -1)
        expected = formula(x, axis=axis).astype(attributes.get("output_dtype", "int32"))
        if attributes.get("keep_dims"):
            expected = np.expand_dims(expected, axis)
        return OneOperator(lambda x: getattr(_mb(), name)(x=x, **attributes), {"x": x}, (expected,), rtol=None)

    return draw_one


def _cumsum(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape())
    axis = {"axis": draw.integer(-1, x.ndim - 1)}
    attributes = draw.turn(
        [axis, {}, axis | {"exclusive": True}, axis | {"reverse": True}, axis | {"exclusive": True, "reverse": True}]
    )
    rows = np.moveaxis(wide(x), attributes.get("axis", 0), -1)
    expected = np.empty_like(rows)
    n = rows.shape[-1]
    exclusive = int(attributes.get("exclusive", False))
    for i in range(n):
        part = rows[..., i + exclusive :] if attributes.get("reverse") else rows[..., : i + 1 - exclusive]
        expected[..., i] = part.sum(-1)
    expected = np.moveaxis(expected, -1, attributes.get("axis", 0))
    return OneOperator(lambda x: _mb().cumsum(x=x, **attributes), {"x": x}, draw.rounded(expected))


def _argsort(draw: Draw) -> OneOperator:
    x = _distinct(draw, draw.shape(1, 4, most=5))
    attributes = draw.turn([{"axis": draw.axis(x.ndim)}, {}, {"axis": draw.axis(x.ndim), "ascending": True}])
    order = np.argsort(x if attributes.get("ascending") else -x, axis=attributes.get("axis", -1))
    return OneOperator(lambda x: _mb().argsort(x=x, **attributes), {"x": x}, (order.astype(np.int32),), rtol=None)


def _topk(draw: Draw) -> OneOperator:
    x = _distinct(draw, draw.shape(1, 4, least=2, most=5))
    axis = draw.axis(x.ndim)
    attributes = draw.turn(
        [
            {"k": draw.integer(1, x.shape[axis]), "axis": axis},
            {"k": x.shape[axis], "axis": axis, "ascending": True},
            {},
            {"k": 2, "axis": axis, "return_indices": False},
            {"k": 1, "axis": axis, "output_indices_dtype": "uint16"},
        ]
    )
    axis = attributes.get("axis", -1)
    order = np.argsort(x if attributes.get("ascending") else -x, axis=axis, kind="stable")
    indices = np.take(order, range(attributes.get("k", 1)), axis=axis)
    expected = (np.take_along_axis(x, indices, axis), indices.astype(attributes.get("output_indices_dtype", "int32")))
    return OneOperator(
        lambda x: _mb().topk(x=x, **attributes),
        {"x": x},
        expected[:1] if attributes.get("return_indices") is False else expected,
        rtol=None,
    )


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    return np.log(np.exp(x).sum(-1))


STATISTICS: dict[str, Generator] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
    "avg_pool": _pool("avg_pool"),
    "max_pool": _pool("max_pool"),
    "reduce_sum": _reduction("reduce_sum", lambda x: x.sum(-1)),
    "reduce_mean": _reduction("reduce_mean", lambda x: x.sum(-1) / x.shape[-1], integers=False),
    "reduce_max": _reduction("reduce_max", lambda x: x.max(-1), exact=True),
    "reduce_min": _reduction("reduce_min", lambda x: x.min(-1), exact=True),
    "reduce_prod": _reduction("reduce_prod", lambda x: np.multiply.reduce(x, -1), 0.5, 1.5, integers=False),
    "reduce_l2_norm": _reduction("reduce_l2_norm", lambda x: np.sqrt((x * x).sum(-1)), integers=False),
    "reduce_log_sum_exp": _reduction("reduce_log_sum_exp", _log_sum_exp, integers=False),
    "reduce_argmax": _arg("reduce_argmax", np.argmax),
    "reduce_argmin": _arg("reduce_argmin", np.argmin),
    "cumsum": _cumsum,
    "argsort": _argsort,
    "topk": _topk,
}
