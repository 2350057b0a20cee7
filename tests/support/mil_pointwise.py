"""Draws of element-wise MIL operators and activations, with what their documentation says that they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mil_programs import Draw, Generator, OneOperator, wide
from scipy import special


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def _unary(
    name: str, formula: Callable[[np.ndarray], np.ndarray], low: float = -4, high: float = 4, exact: bool = False
) -> Generator:
    def draw_one(draw: Draw) -> OneOperator:
        x = draw.floats(draw.shape(), low, high)
        if exact:  # halves and zeros, where rounding and signs are decided
            x.flat[0] = draw.turn([0.5, 0.0])
        expected = formula(x) if exact else formula(wide(x))
        return OneOperator(
            lambda x: getattr(_mb(), name)(x=x), {"x": x}, draw.rounded(expected), rtol=None if exact else 1e-5
        )

    return draw_one


def _unary_of_integers(name: str, formula: Callable[[np.ndarray], np.ndarray], draw_floats: Generator) -> Generator:
    def draw_one(draw: Draw) -> OneOperator:
        if draw.seed % 3 < 2:
            return draw_floats(draw)
        x = draw.integers(draw.shape())
        return OneOperator(lambda x: getattr(_mb(), name)(x=x), {"x": x}, (formula(x).astype(np.int32),), rtol=None)

    return draw_one


def _with_epsilon(name: str, formula: Callable[[np.ndarray, float], np.ndarray], default: float) -> Generator:
    """Operators of x + epsilon; every second seed leaves the epsilon out."""

    def draw_one(draw: Draw) -> OneOperator:
        x = draw.floats(draw.shape(), 0.1, 6)
        attributes = draw.turn([{}, {"epsilon": draw.float(0.1, 1)}])
        epsilon = float(attributes.get("epsilon", draw.dtype(default)))
        return OneOperator(
            lambda x: getattr(_mb(), name)(x=x, **attributes), {"x": x}, draw.rounded(formula(wide(x), epsilon))
        )

    return draw_one


def _operands(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast, sometimes of different ranks."""
    full = draw.shape(1, 5)
    x, y = (tuple(1 if draw.rng.random() < 0.25 else size for size in full) for _ in range(2))
    return (x, y[draw.integer(0, len(y) - 1) :]) if draw.seed % 2 else (x, y)


def _binary(
    name: str, formula: Callable[[np.ndarray, np.ndarray], np.ndarray], integers: bool = True, exact: bool = True
) -> Generator:
    """Every third seed draws integers, where the operator takes them; ties and negative divisors come up there."""

    def draw_one(draw: Draw) -> OneOperator:
        x_shape, y_shape = _operands(draw)
        if integers and draw.seed % 3 == 2:
            x, y = draw.integers(x_shape), draw.integers(y_shape)
            if name in ("floor_div", "mod"):
                y[y == 0] = 4
            expected = formula(x, y)
        else:
            x, y = draw.floats(x_shape), draw.floats(y_shape)
            if name in ("floor_div", "mod", "real_div"):
                y = np.where(np.abs(y) < 0.25, draw.dtype(-1.5), y)
            x.flat[0] = y.flat[0]
            expected = formula(x, y) if exact else formula(wide(x), wide(y))
        result = expected if expected.dtype in (bool, np.int32) else draw.rounded(expected)[0]
        return OneOperator(
            lambda x, y: getattr(_mb(), name)(x=x, y=y), {"x": x, "y": y}, (result,), rtol=None if exact else 1e-5
        )

    return draw_one


def _pow(draw: Draw) -> OneOperator:
    x_shape, y_shape = _operands(draw)
    if draw.seed % 3 == 2:  # a square root, a square or a cube of anything, as models have it
        x, y = draw.floats(x_shape, 0, 4), np.asarray(draw.any([0.5, 2, 3]), dtype=draw.dtype)
        expected = draw.rounded(wide(x) ** wide(y))
        return OneOperator(lambda x: _mb().pow(x=x, y=y), {"x": x}, expected)
    x, y = draw.floats(x_shape, 0.2, 3), draw.floats(y_shape, -2, 2)
    return OneOperator(lambda x, y: _mb().pow(x=x, y=y), {"x": x, "y": y}, draw.rounded(wide(x) ** wide(y)))


def _logical(name: str, formula: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Generator:
    def draw_one(draw: Draw) -> OneOperator:
        x_shape, y_shape = _operands(draw)
        x, y = draw.bools(x_shape), draw.bools(y_shape)
        return OneOperator(lambda x, y: getattr(_mb(), name)(x=x, y=y), {"x": x, "y": y}, (formula(x, y),), rtol=None)

    return draw_one


def _logical_not(draw: Draw) -> OneOperator:
    x = draw.bools(draw.shape())
    return OneOperator(lambda x: _mb().logical_not(x=x), {"x": x}, (np.where(x, False, True),), rtol=None)


def _select(draw: Draw) -> OneOperator:
    """The condition is broadcast to the values: coremltools' type inference does not look at its shape."""
    shape = draw.shape(1, 5)
    condition = draw.bools(shape if draw.seed % 2 else tuple(1 if draw.rng.random() < 0.4 else n for n in shape))
    integers = draw.seed % 3 == 2
    a, b = (draw.integers(shape) if integers else draw.floats(shape) for _ in range(2))
    return OneOperator(
        lambda cond, a, b: _mb().select(cond=cond, a=a, b=b),
        {"cond": condition, "a": a, "b": b},
        (np.where(condition, a, b),),
        rtol=None,
    )


def _clip(draw: Draw) -> OneOperator:
    x, low, high = draw.floats(draw.shape()), draw.float(-3, 0), draw.float(0.5, 3)
    expected = np.where(x < low, low, np.where(x > high, high, x))
    return OneOperator(lambda x: _mb().clip(x=x, alpha=low, beta=high), {"x": x}, (expected,), rtol=None)


def _threshold(draw: Draw) -> OneOperator:
    x, low = draw.floats(draw.shape()), draw.float(-2, 2)
    return OneOperator(lambda x: _mb().threshold(x=x, alpha=low), {"x": x}, (np.where(x < low, low, x),), rtol=None)


def _cast(draw: Draw) -> OneOperator:
    """Towards zero into integers; within the range of the type, as beyond it nothing is documented."""
    source, target = draw.turn(
        [
            (draw.dtype, np.int32),
            (np.int32, draw.dtype),
            (draw.dtype, np.bool_),
            (np.bool_, draw.dtype),
            (draw.dtype, np.int8),
            (np.uint8, draw.dtype),
            (np.int32, np.int16),
            (draw.dtype, np.float32),
            (np.int8, np.int32),
            (draw.dtype, np.uint16),
            (np.float32, draw.dtype),
        ]
    )
    shape, unsigned = draw.shape(), np.uint8 in (source, target) or target is np.uint16
    if source is np.bool_:
        x = draw.bools(shape)
    elif issubclass(source, np.floating):
        x = draw.floats(shape, 0 if unsigned else -99, 99)
        x.flat[-1] = 0
    else:
        x = draw.integers(shape, 0 if unsigned else -99, 99, source)
    name = {"float16": "fp16", "float32": "fp32"}.get(np.dtype(target).name, np.dtype(target).name)
    expected = x != 0 if target is np.bool_ else np.trunc(x.astype(np.float64)).astype(target)
    if issubclass(target, np.floating):
        expected = x.astype(target)
    return OneOperator(lambda x: _mb().cast(x=x, dtype=name), {"x": x}, (expected,), rtol=None)


def _with_attributes(
    name: str,
    formula: Callable[..., np.ndarray],
    ranges: dict[str, tuple[float, float]],
    per_channel: bool = False,
    ranks: tuple[int, int] = (1, 5),
) -> Generator:
    """An activation with alpha, and beta where it has one; vectors over the second axis where `per_channel`."""

    def draw_one(draw: Draw) -> OneOperator:
        x = draw.floats(draw.shape(*ranks))
        attributes = {
            key: draw.floats((x.shape[1],), *limits) if per_channel else draw.float(*limits)
            for key, limits in ranges.items()
        }
        along = (1, -1, *[1] * (x.ndim - 2)) if per_channel else ()
        values = {key: wide(value).reshape(along) for key, value in attributes.items()}
        return OneOperator(
            lambda x: getattr(_mb(), name)(x=x, **attributes), {"x": x}, draw.rounded(formula(wide(x), **values))
        )

    return draw_one


def _prelu(draw: Draw) -> OneOperator:
    """coremltools takes ranks 3 and 5 only with one slope for all channels."""
    x = draw.floats(draw.shape(*draw.turn([(4, 4), (3, 3), (4, 4), (5, 5)])))
    alpha = draw.floats((x.shape[1],), -1, 1)
    if x.ndim != 4:
        alpha[:] = alpha[0]
    slope = wide(alpha).reshape(-1, *[1] * (x.ndim - 2))
    expected = draw.rounded(np.where(x > 0, wide(x), slope * wide(x)))
    return OneOperator(lambda x: _mb().prelu(x=x, alpha=alpha), {"x": x}, expected)


def _thresholded_relu(draw: Draw) -> OneOperator:
    x, alpha = draw.floats(draw.shape()), draw.float(-1, 1)
    x.flat[0] = alpha
    expected = np.where(x >= alpha, x, draw.dtype(0))
    return OneOperator(lambda x: _mb().thresholded_relu(x=x, alpha=alpha), {"x": x}, (expected,), rtol=None)


def _gelu(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape())
    mode = draw.turn([None, "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION", "EXACT"])
    v = wide(x)
    expected = {
        "TANH_APPROXIMATION": 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
        "SIGMOID_APPROXIMATION": v / (1 + np.exp(-1.702 * v)),
    }.get(mode or "EXACT", 0.5 * v * (1 + special.erf(v / np.sqrt(2))))
    attributes = {"mode": mode} if mode else {}
    return OneOperator(lambda x: _mb().gelu(x=x, **attributes), {"x": x}, draw.rounded(expected))


def _softmax(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(), -30, 30)
    attributes = draw.turn([{"axis": draw.axis(x.ndim)}, {}])
    power = np.exp(wide(x) - wide(x).max(axis=attributes.get("axis", -1), keepdims=True))
    expected = power / power.sum(axis=attributes.get("axis", -1), keepdims=True)
    return OneOperator(lambda x: _mb().softmax(x=x, **attributes), {"x": x}, draw.rounded(expected))


def _nearest_even(x: np.ndarray) -> np.ndarray:
    """Written out: the even neighbour of a half."""
    low = np.floor(x)
    return np.where((x - low > 0.5) | ((x - low == 0.5) & (low % 2 == 1)), low + 1, low).astype(x.dtype)


ELEMENTWISE: dict[str, Generator] = {
    "abs": _unary_of_integers("abs", lambda x: np.where(x < 0, -x, x), _unary("abs", np.abs, exact=True)),
    "acos": _unary("acos", np.arccos, -1, 1),
    "asin": _unary("asin", np.arcsin, -1, 1),
    "atan": _unary("atan", np.arctan),
    "atanh": _unary("atanh", np.arctanh, -0.95, 0.95),
    "ceil": _unary("ceil", np.ceil, exact=True),
    "cos": _unary("cos", np.cos),
    "cosh": _unary("cosh", np.cosh),
    "erf": _unary("erf", special.erf),
    "exp": _unary("exp", np.exp),
    "exp2": _unary("exp2", np.exp2),
    "floor": _unary("floor", np.floor, exact=True),
    "identity": _unary("identity", lambda x: x, exact=True),
    "inverse": _with_epsilon("inverse", lambda x, epsilon: 1 / (x + epsilon), 1e-4),
    "log": _with_epsilon("log", lambda x, epsilon: np.log(x + epsilon), 1e-45),
    "round": _unary("round", _nearest_even, exact=True),
    "rsqrt": _with_epsilon("rsqrt", lambda x, epsilon: (x + epsilon) ** -0.5, 1e-12),
    "sign": _unary_of_integers("sign", np.sign, _unary("sign", np.sign, exact=True)),
    "sin": _unary("sin", np.sin),
    "sinh": _unary("sinh", np.sinh),
    "sqrt": _unary("sqrt", np.sqrt, 0, 9),
    "square": _unary_of_integers("square", lambda x: x * x, _unary("square", lambda x: x * x, exact=True)),
    "tan": _unary("tan", np.tan, -1.4, 1.4),
    "tanh": _unary("tanh", np.tanh),
    "add": _binary("add", np.add),
    "sub": _binary("sub", np.subtract),
    "mul": _binary("mul", np.multiply),
    "real_div": _binary("real_div", np.divide, integers=False),
    "floor_div": _binary("floor_div", lambda x, y: np.floor(wide(x) / wide(y)).astype(x.dtype)),
    "mod": _binary("mod", lambda x, y: (x - np.floor(x / y) * y).astype(x.dtype), exact=False),
    "maximum": _binary("maximum", lambda x, y: np.where(x > y, x, y)),
    "minimum": _binary("minimum", lambda x, y: np.where(x > y, y, x)),
    "equal": _binary("equal", np.equal),
    "not_equal": _binary("not_equal", np.not_equal),
    "less": _binary("less", np.less),
    "less_equal": _binary("less_equal", np.less_equal),
    "greater": _binary("greater", np.greater),
    "greater_equal": _binary("greater_equal", np.greater_equal),
    "pow": _pow,
    "logical_and": _logical("logical_and", np.logical_and),
    "logical_or": _logical("logical_or", np.logical_or),
    "logical_xor": _logical("logical_xor", np.not_equal),
    "logical_not": _logical_not,
    "select": _select,
    "clip": _clip,
    "threshold": _threshold,
    "cast": _cast,
}

ACTIVATIONS: dict[str, Generator] = {
    "relu": _unary("relu", lambda x: np.where(x > 0, x, x.dtype.type(0)), exact=True),
    "relu6": _unary("relu6", lambda x: np.clip(x, 0, 6), -9, 9, exact=True),
    "sigmoid": _unary("sigmoid", special.expit, -9, 9),
    "silu": _unary("silu", lambda x: x * special.expit(x), -9, 9),
    "softplus": _unary("softplus", lambda x: np.log1p(np.exp(x)), -9, 25),
    "softsign": _unary("softsign", lambda x: x / (1 + np.abs(x))),
    "leaky_relu": _with_attributes(
        "leaky_relu", lambda x, alpha: np.where(x >= 0, x, alpha * x), {"alpha": (0.01, 0.9)}
    ),
    "elu": _with_attributes("elu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), {"alpha": (0.2, 2)}),
    "prelu": _prelu,
    "sigmoid_hard": _with_attributes(
        "sigmoid_hard",
        lambda x, alpha, beta: np.minimum(np.maximum(alpha * x + beta, 0), 1),
        {"alpha": (0.1, 0.5), "beta": (0, 1)},
    ),
    "linear_activation": _with_attributes(
        "linear_activation", lambda x, alpha, beta: alpha * x + beta, {"alpha": (-2, 2), "beta": (-2, 2)}
    ),
    "softplus_parametric": _with_attributes(
        "softplus_parametric",
        lambda x, alpha, beta: alpha * np.log1p(np.exp(beta * x)),
        {"alpha": (-2, 2), "beta": (-2, 2)},
        per_channel=True,
        ranks=(4, 4),
    ),
    "thresholded_relu": _thresholded_relu,
    "gelu": _gelu,
    "softmax": _softmax,
}
