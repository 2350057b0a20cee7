"""Frozen dataclasses in, JSON-ready dicts out, and strictly back: an unknown, missing or mistyped key is an error.

A field with a default is younger than the others: a record that lacks it is an older one, and takes the default.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union

from targets.words import suggest

Record = TypeVar("Record")


class RecordError(Exception):
    """What was read is no record of its class: which key, the value seen, what was expected."""


def to_dict(record: Any) -> dict[str, Any]:
    """A dataclass -> dict of plain JSON values; every field is written, None included.

    Raises:
        TypeError: a field holds something that JSON has no exact form for (NaN and infinity among them).
    """
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"{type(record).__name__} is not a record")
    return {field.name: _plain(getattr(record, field.name), field.name) for field in fields(record)}


def from_dict(cls: type[Record], data: object, where: str = "") -> Record:
    """The opposite of `to_dict`.

    Args:
        where: what `data` is, for the error message ("report.json").

    Raises:
        RecordError: which key, the value seen, what was expected.
    """
    return typing.cast(Record, _read_dataclass(cls, data, where or cls.__name__))


def _plain(value: Any, where: str) -> Any:
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where}: keys {sorted(map(repr, value))} are not all strings")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise TypeError(f"{where}: {value!r} ({type(value).__name__}) has no exact JSON form")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read_dataclass(cls: type, data: object, where: str) -> object:
    if not isinstance(data, Mapping):
        raise RecordError(f"{where} is {_shown(data)}, expected an object")
    names = [field.name for field in fields(cls)]
    for key in data:
        if key not in names:
            raise RecordError(f"{where} has an unknown key {key!r}.{suggest(str(key), names)}")
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in data]
    if missing:
        raise RecordError(f"{where} lacks {', '.join(missing)}")
    hints = _hints(cls)
    values = {name: _read(hints[name], data[name], f"{where}.{name}") for name in names if name in data}
    try:
        return cls(**values)
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from None


def _read(hint: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return _read_dataclass(hint, data, where)
    if origin in (types.UnionType, Union):  # X | None is the only union in the records
        if data is None:
            return None
        (other,) = (arg for arg in args if arg is not types.NoneType)
        return _read(other, data, where)
    if origin is Literal:
        if data in args:
            return data
        raise RecordError(f"{where} is {_shown(data)}, expected one of {', '.join(map(str, args))}")
    if origin is tuple:  # tuple[X, ...]
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise RecordError(f"{where} is {_shown(data)}, expected a list")
        return tuple(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, Mapping):
            raise RecordError(f"{where} is {_shown(data)}, expected an object")
        return {str(key): _read(args[1], item, f"{where}.{key}") for key, item in data.items()}
    return _read_scalar(hint, data, where)


def _read_scalar(hint: Any, data: Any, where: str) -> Any:
    if hint is object:  # free-form JSON below this key
        try:
            return _plain(data, where)
        except TypeError as error:
            raise RecordError(str(error)) from None
    if hint is float and type(data) in (int, float):
        if not math.isfinite(data):
            raise RecordError(f"{where} is {data}: what was not measured is null")
        return float(data)
    if type(data) is hint:  # `type`, not isinstance: True is no int here
        return data
    raise RecordError(f"{where} is {_shown(data)}, expected {hint.__name__}")


def _shown(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."
