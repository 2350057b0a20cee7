"""Draws of MIL operators that move values without computing: shapes, slices, gathers, blocks of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from mil_programs import Draw, Generator, OneOperator


def _mb() -> Any:
    from coremltools.converters.mil.mil import Builder

    return Builder


def _moved(name: str, x: np.ndarray, expected: np.ndarray, **attributes: Any) -> OneOperator:
    return OneOperator(lambda x: getattr(_mb(), name)(x=x, **attributes), {"x": x}, (expected,), rtol=None)


def _values(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Floats, and integers every third seed."""
    return draw.integers(shape) if draw.seed % 3 == 2 else draw.floats(shape)


def _axes(draw: Draw, rank: int, count: int) -> list[int]:
    """Some axes, counted from either end."""
    return [a - draw.any([0, rank]) for a in sorted(draw.rng.permutation(rank)[:count].tolist())]


def _reshape(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(2, 5))
    sizes = list(x.shape)
    first = draw.integer(0, x.ndim - 2)
    merged = [*sizes[:first], sizes[first] * sizes[first + 1], *sizes[first + 2 :]]
    asked = draw.turn(
        [
            merged,
            [-1 if i == first else size for i, size in enumerate(merged)],
            [-1],
            [0] * (x.ndim - 1) + [-1],
            [1, *sizes[:-1], 1, -1],
        ]
    )
    expected = {
        0: x.reshape(merged),
        1: x.reshape(merged),
        2: x.reshape(x.size),
        3: x,
        4: x.reshape(1, *sizes[:-1], 1, sizes[-1]),
    }[draw.seed % 5]
    return _moved("reshape", x, expected, shape=asked)


def _transpose(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 5))
    permutation = draw.rng.permutation(x.ndim).tolist()
    expected = np.empty([x.shape[p] for p in permutation], x.dtype)
    for place in np.ndindex(*expected.shape):
        source = dict(zip(permutation, place, strict=True))
        expected[place] = x[tuple(source[i] for i in range(x.ndim))]
    asked = [p - draw.any([0, x.ndim]) for p in permutation]
    return _moved("transpose", x, expected, perm=asked)


def _expand_dims(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 3))
    count = draw.integer(1, 2)
    rank = x.ndim + count
    axes = _axes(draw, rank, count)
    sizes = iter(x.shape)
    expected = x.reshape([1 if i in {a % rank for a in axes} else next(sizes) for i in range(rank)])
    return _moved("expand_dims", x, expected, axes=axes)


def _squeeze(draw: Draw) -> OneOperator:
    sizes = [*draw.shape(1, 2, least=2), 1, 1]
    sizes = [sizes[i] for i in draw.rng.permutation(len(sizes))]
    x = _values(draw, tuple(sizes))
    if draw.seed % 2:
        return _moved("squeeze", x, x.reshape([size for size in sizes if size != 1]))
    axis = draw.any([i for i, size in enumerate(sizes) if size == 1])
    expected = x.reshape(sizes[:axis] + sizes[axis + 1 :])
    return _moved("squeeze", x, expected, axes=[axis - draw.any([0, x.ndim])])


def _concat(draw: Draw) -> OneOperator:
    shape = draw.shape(1, 5, most=4)
    axis, parts = draw.axis(len(shape)), draw.integer(2, 4)
    at = axis % len(shape)
    arrays = {f"v{i}": draw.floats((*shape[:at], draw.integer(1, 4), *shape[at + 1 :])) for i in range(parts)}
    total = sum(a.shape[at] for a in arrays.values())
    expected = np.empty((*shape[:at], total, *shape[at + 1 :]), draw.dtype)
    start = 0
    for array in arrays.values():
        expected[(slice(None),) * at + (slice(start, start + array.shape[at]),)] = array
        start += array.shape[at]
    attributes = draw.turn([{}, {"interleave": False}])
    return OneOperator(
        lambda **v: _mb().concat(values=tuple(v.values()), axis=axis, **attributes), arrays, (expected,), rtol=None
    )


def _split(draw: Draw) -> OneOperator:
    shape = draw.shape(1, 4, most=4)
    axis = draw.axis(len(shape))
    at = axis % len(shape)
    sizes = [draw.integer(1, 3) for _ in range(draw.integer(2, 4))]
    attributes: dict[str, Any] = {"split_sizes": sizes}
    if draw.seed % 3 == 1:
        sizes = [2, 2, 2]
        attributes = {"num_splits": 3}
    elif draw.seed % 3 == 2:
        attributes["num_splits"] = len(sizes)
    x = draw.floats((*shape[:at], sum(sizes), *shape[at + 1 :]))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    expected = tuple(x[(slice(None),) * at + (slice(s, s + n),)] for s, n in zip(starts, sizes, strict=True))
    return OneOperator(lambda x: _mb().split(x=x, axis=axis, **attributes), {"x": x}, expected, rtol=None)


def _stack(draw: Draw) -> OneOperator:
    shape = draw.shape(1, 4, most=4)
    arrays = {f"v{i}": draw.floats(shape) for i in range(draw.integer(1, 3))}
    axis = draw.axis(len(shape) + 1)
    at = axis % (len(shape) + 1)
    expected = np.empty((*shape[:at], len(arrays), *shape[at:]), draw.dtype)
    for i, array in enumerate(arrays.values()):
        expected[(slice(None),) * at + (i,)] = array
    return OneOperator(lambda **v: _mb().stack(values=tuple(v.values()), axis=axis), arrays, (expected,), rtol=None)


def _tile(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 4, most=4))
    reps = [draw.integer(1, 3) for _ in range(x.ndim)]
    grid = np.ix_(*[np.arange(size * n) % size for size, n in zip(x.shape, reps, strict=True)])
    return _moved("tile", x, x[grid], reps=reps)


def _pad(draw: Draw) -> OneOperator:
    mode = draw.turn(["constant", "reflect", "replicate", None])
    x = draw.floats(draw.shape(2, 5, least=3, most=4))
    # Core ML reflects and replicates at most the last two axes
    count = draw.integer(1, x.ndim if mode in ("constant", None) else 2)
    pads = [draw.integer(0, 2) for _ in range(2 * count)]
    attributes: dict[str, Any] = {"pad": pads} | ({"mode": mode} if mode else {})
    value = draw.dtype(0)
    if draw.dtype is np.float16:  # coremltools writes its default in single precision, and then refuses to load it
        attributes["constant_val"] = value
    if mode == "constant":
        attributes["constant_val"] = value = draw.float(-2, 2)
    around = [(0, 0)] * (x.ndim - count) + [(pads[2 * i], pads[2 * i + 1]) for i in range(count)]
    places, inside = [], []
    for size, (before, after) in zip(x.shape, around, strict=True):
        i = np.arange(-before, size + after)
        inside.append((i >= 0) & (i < size))
        mirrored = np.where(i < 0, -i, np.where(i >= size, 2 * (size - 1) - i, i))
        places.append(mirrored if mode == "reflect" else np.clip(i, 0, size - 1))
    expected = x[np.ix_(*places)]
    if mode in ("constant", None):
        kept = np.ones(expected.shape, bool)
        for axis, mask in enumerate(inside):
            kept &= mask.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        expected = np.where(kept, expected, value)
    return _moved("pad", x, expected, **attributes)


def _slice_by_index(draw: Draw) -> OneOperator:
    """A begin that is masked under a negative stride starts at the last element, as in coremltools' own inference; its
    documentation says 0 without telling the sign of the stride.
    """
    x = _values(draw, draw.shape(1, 5, least=2))
    begin, end, stride, index = [], [], [], []
    masks: dict[str, list[bool]] = {"begin_mask": [], "end_mask": [], "squeeze_mask": []}
    for size in x.shape:
        backwards = draw.seed % 3 == 1 and draw.rng.random() < 0.5
        low, high = sorted(draw.rng.permutation(size + 1)[:2].tolist())
        step = draw.integer(1, 2)
        from_start, to_end = (draw.seed % 2 == 1 and draw.rng.random() < 0.4 for _ in range(2))
        picked = draw.seed % 4 == 3 and draw.rng.random() < 0.4
        if backwards:  # high - 1, high - 2, ..., low
            b, e, s = high - 1, low - 1, -step
            to_end = to_end or low == 0
            places = list(range(size - 1 if from_start else b, -1 if to_end else e, s))
        else:
            b, e, s = low, high, step
            places = list(range(0 if from_start else b, size if to_end else e, s))
        from_start = from_start and not picked
        begin.append(b - (size if draw.rng.random() < 0.3 else 0))
        end.append(e - (size if draw.rng.random() < 0.3 and 0 <= e < size else 0))
        stride.append(s)
        masks["begin_mask"].append(from_start)
        masks["end_mask"].append(to_end)
        masks["squeeze_mask"].append(picked)
        index.append(b if picked else places)
    if all(masks["squeeze_mask"]):  # a package gives no scalars
        masks["squeeze_mask"][0] = False
        index[0] = list(
            range(
                begin[0] % x.shape[0],
                (-1 if stride[0] < 0 else x.shape[0]) if masks["end_mask"][0] else end[0] % (x.shape[0] + 1),
                stride[0],
            )
        )
    expected = x
    for axis in reversed(range(x.ndim)):
        expected = np.take(expected, index[axis], axis)
    attributes: dict[str, Any] = {key: mask for key, mask in masks.items() if any(mask)}
    if any(s != 1 for s in stride) or draw.seed % 2:
        attributes["stride"] = stride
    return _moved("slice_by_index", x, expected, begin=begin, end=end, **attributes)


def _slice_by_size(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 5))
    begin = [draw.integer(0, size - 1) for size in x.shape]
    count = [draw.integer(1, size - b) for size, b in zip(x.shape, begin, strict=True)]
    rest = [draw.rng.random() < 0.3 for _ in x.shape]
    expected = x[tuple(slice(b, None if r else b + n) for b, n, r in zip(begin, count, rest, strict=True))]
    asked = [-1 if r else n for n, r in zip(count, rest, strict=True)]
    return _moved("slice_by_size", x, expected, begin=begin, size=asked)


def _gather(draw: Draw) -> OneOperator:
    batch_dims = draw.turn([0, 0, 0, 1])
    x = _values(draw, draw.shape(1 + batch_dims, 3, least=2, most=5))
    axis = draw.integer(batch_dims, x.ndim - 1)
    shape = (*x.shape[:batch_dims], *draw.shape(1, 2, most=4))
    indices = draw.integers(shape, 0, x.shape[axis] - 1)
    if batch_dims:
        expected = np.stack([np.take(x[b], indices[b], axis - 1) for b in range(len(x))])
    else:
        expected = np.take(x, indices.ravel(), axis).reshape(x.shape[:axis] + shape + x.shape[axis + 1 :])
    attributes: dict[str, Any] = {"axis": axis - draw.any([0, x.ndim])} if axis or draw.seed % 2 else {}
    if batch_dims:
        attributes = {"axis": axis, "batch_dims": 1}
    if draw.seed % 3 == 0:  # an embedding: constant table
        return OneOperator(
            lambda indices: _mb().gather(x=x, indices=indices, **attributes),
            {"indices": indices},
            (expected,),
            rtol=None,
        )
    return OneOperator(
        lambda x, indices: _mb().gather(x=x, indices=indices, **attributes),
        {"x": x, "indices": indices},
        (expected,),
        rtol=None,
    )


def _gather_along_axis(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 4, least=2, most=5))
    axis = draw.axis(x.ndim) if draw.seed % 2 else 0
    shape = list(x.shape)
    shape[axis] = draw.integer(1, 5)
    indices = draw.integers(shape, 0, x.shape[axis] - 1)
    expected = np.empty(shape, x.dtype)
    for place in np.ndindex(*shape):
        source = list(place)
        source[axis] = int(indices[place])
        expected[place] = x[tuple(source)]
    attributes = {"axis": axis} if draw.seed % 2 else {}
    return OneOperator(
        lambda x, indices: _mb().gather_along_axis(x=x, indices=indices, **attributes),
        {"x": x, "indices": indices},
        (expected,),
        rtol=None,
    )


def _gather_nd(draw: Draw) -> OneOperator:
    batch_dims = draw.turn([0, 0, 1])
    x = draw.floats(draw.shape(2 + batch_dims, 4, least=2, most=4))
    depth = draw.integer(1, x.ndim - batch_dims)
    if depth == x.ndim - batch_dims:
        lead: tuple[int, ...] = draw.shape(1, 2, most=3)
    else:
        lead = draw.shape(1, 1, most=3)
    shape = (*x.shape[:batch_dims], *lead)
    columns = [draw.integers(shape, 0, x.shape[batch_dims + i] - 1) for i in range(depth)]
    indices = np.stack(columns, -1)
    expected = np.empty((*shape, *x.shape[batch_dims + depth :]), x.dtype)
    for place in np.ndindex(*shape):
        expected[place] = x[place[:batch_dims] + tuple(int(i) for i in indices[place])]
    attributes = {"batch_dims": 1} if batch_dims else {}
    return OneOperator(
        lambda x, indices: _mb().gather_nd(x=x, indices=indices, **attributes),
        {"x": x, "indices": indices},
        (expected,),
        rtol=None,
    )


def _blocks(draw: Draw, whole: bool) -> tuple[np.ndarray, int, tuple[int, int, int, int]]:
    """An image whose channels, or sides where `whole`, divide into blocks; the block; n, c, h, w of the parts."""
    b, n, c, h, w = draw.integer(2, 3), *(draw.integer(1, 3) for _ in range(4))
    shape = (n, c, h * b, w * b) if whole else (n, c * b * b, h, w)
    return draw.floats(shape), b, (n, c, h, w)


def _pixel_shuffle(draw: Draw) -> OneOperator:
    """PyTorch's PixelShuffle: channel c of the result has input channels c * b * b + row * b + column."""
    x, b, (n, c, h, w) = _blocks(draw, whole=False)
    expected = np.empty((n, c, h * b, w * b), x.dtype)
    for o, i, j in np.ndindex(c, b, b):
        expected[:, o, i::b, j::b] = x[:, o * b * b + i * b + j]
    return _moved("pixel_shuffle", x, expected, upscale_factor=b)


def _pixel_unshuffle(draw: Draw) -> OneOperator:
    x, b, (n, c, h, w) = _blocks(draw, whole=True)
    expected = np.empty((n, c * b * b, h, w), x.dtype)
    for o, i, j in np.ndindex(c, b, b):
        expected[:, o * b * b + i * b + j] = x[:, o, i::b, j::b]
    # Its docstring has const<i32>; the input takes uint32.
    return _moved("pixel_unshuffle", x, expected, downscale_factor=np.uint32(b))


def _band_part(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(2, 4))
    attributes = draw.turn(
        [{"lower": draw.integer(0, 2), "upper": draw.integer(0, 2)}, {"lower": 0}, {"upper": 0, "lower": -1}, {}]
    )
    lower, upper = attributes.get("lower", -1), attributes.get("upper", -1)
    expected = np.zeros_like(x)
    for m, n in np.ndindex(*x.shape[-2:]):
        if (lower < 0 or m - n <= lower) and (upper < 0 or n - m <= upper):
            expected[..., m, n] = x[..., m, n]
    return _moved("band_part", x, expected, **attributes)


def _reverse(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 5))
    axes = _axes(draw, x.ndim, draw.integer(1, x.ndim)) if draw.seed % 2 == 0 else None
    flipped = set(range(x.ndim)) if axes is None else {a % x.ndim for a in axes}
    grid = np.ix_(*[np.arange(n)[::-1] if a in flipped else np.arange(n) for a, n in enumerate(x.shape)])
    return _moved("reverse", x, x[grid], **({} if axes is None else {"axes": axes}))


def _shape(draw: Draw) -> OneOperator:
    x = _values(draw, draw.shape(1, 5))
    return _moved("shape", x, np.array(list(x.shape), np.int32))


def _fill(draw: Draw) -> OneOperator:
    """The shape is that of the input, so that nothing is constant."""
    x = draw.floats(draw.shape(1, 5))
    value = draw.turn([draw.float(-2, 2), np.int32(draw.integer(-5, 5)), draw.dtype(0)])
    expected = np.empty(x.shape, value.dtype)
    expected[...] = value
    sizes = list(x.shape)
    return OneOperator(
        # the input goes out beside it: a package needs one
        lambda x: (_mb().fill(shape=sizes, value=value), _mb().identity(x=x)),
        {"x": x},
        (expected, x),
        rtol=None,
    )


def _fill_like(draw: Draw) -> OneOperator:
    x = draw.floats(draw.shape(1, 5))
    value = draw.turn([draw.float(-2, 2), np.int32(draw.integer(-5, 5)), draw.dtype(0)])
    expected = np.empty(x.shape, value.dtype)
    expected[...] = value
    return OneOperator(lambda x: _mb().fill_like(ref_tensor=x, value=value), {"x": x}, (expected,), rtol=None)


def _one_hot(draw: Draw) -> OneOperator:
    count = draw.integer(2, 5)
    indices = draw.integers(draw.shape(1, 3, most=4), 0, count - 1)
    on, off = draw.floats((), 1, 3)[()], draw.floats((), -2, 0)[()]
    attributes, axis = draw.turn(
        [
            ({"axis": -1, "on_value": on, "off_value": off}, -1),
            ({}, -1),
            ({"axis": 0, "on_value": on, "off_value": off}, 0),
        ]
    )
    on, off = (on, off) if attributes else (np.int32(1), np.int32(0))
    rows = [np.where(indices == i, on, off) for i in range(count)]
    expected = np.stack(rows, axis)
    return OneOperator(
        lambda indices: _mb().one_hot(indices=indices, one_hot_vector_size=count, **attributes),
        {"indices": indices},
        (expected,),
        rtol=None,
    )


def _range_1d(draw: Draw) -> OneOperator:
    """Constant, as everywhere where shapes are fixed; the input goes out beside it."""
    start, step = draw.integer(-5, 5), draw.any([1, 2, 3])
    expected = np.array([start + step * i for i in range(draw.integer(1, 6))], np.int32)
    end = int(expected[-1]) + draw.integer(1, step)
    x = draw.floats(draw.shape())
    return OneOperator(
        lambda x: (_mb().range_1d(start=start, end=end, step=step), _mb().identity(x=x)),
        {"x": x},
        (expected, x),
        rtol=None,
    )


LAYOUTS: dict[str, Generator] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": _concat,
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "pad": _pad,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "band_part": _band_part,
    "reverse": _reverse,
    "shape": _shape,
    "fill": _fill,
    "fill_like": _fill_like,
    "one_hot": _one_hot,
    "range_1d": _range_1d,
}
