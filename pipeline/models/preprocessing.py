"""How images are prepared for a model: what options, the checkpoint and the model say, and which of them decides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.config import INTERPOLATION_NAMES
from pipeline.errors import UsageError, WeightsError
from pipeline.models.build import T2T_OWNER, ModelConfig
from pipeline.models.zoo import is_t2t, timm_name

CHANNELS = 3
LARGEST_CROP = 2.0  # timm has 1.15: the image is padded
#: Fields of ModelConfig, and the options that overrule a checkpoint in them.
FLAGS = {
    "input_size": "--img-size",
    "mean": "--mean",
    "std": "--std",
    "crop_pct": "--crop-pct",
    "interpolation": "--interpolation",
    "crop_mode": "",
}

#: What one source says, by the names that timm's `args` and `pretrained_cfg` have; None or "" says nothing.
Said = Mapping[str, object]


class Known(NamedTuple):
    """A value, and the source it came from in words."""

    value: Any
    source: str


def settle(place: str, given: Said, sources: Mapping[str, Said]) -> dict[str, Known]:
    """By field of ModelConfig, what is known before a model is built: options first, then what the sources agree on.

    Args:
        place: of the weights, for messages.
        given: by the options.
        sources: about these weights, by their name in words.

    Raises:
        UsageError: an option with a value that cannot be.
        WeightsError: a source with such a value, or two that say different things.
    """
    known: dict[str, Known] = {}
    for field, flag in FLAGS.items():
        if (value := _said(given, field)) is not None:
            try:
                known[field] = Known(_read(field, value), flag)
            except ValueError as error:
                raise UsageError(f"{flag}: {error}") from None
            continue
        found: list[Known] = []
        for source, said in sources.items():
            if (value := _said(said, field)) is not None:
                try:
                    found.append(Known(_read(field, value), source))
                except ValueError as error:
                    raise WeightsError(f"{place}: {error} ({source}): {_way_out(field)}") from None
        for other in found[1:]:
            if not _same(other.value, found[0].value):
                both = " and ".join(f"{_shown(k.value)} ({k.source})" for k in (found[0], other))
                raise WeightsError(f"{place}: {field} is {both}: {_way_out(field)}")
        if found:
            known[field] = found[0]
    return known


def complete(built: ModelConfig, known: Mapping[str, Known], silent: str) -> tuple[ModelConfig, dict[str, str]]:
    """The config of a built model with what is known in place of its own values; and the origin of each.

    Args:
        silent: the file that says nothing where the model's own value is taken; "" where no file could.

    Raises:
        WeightsError: the model was built for another input size.
    """
    if (size := known.get("input_size")) and size.value != built.input_size:
        raise WeightsError(
            f"{built.name} has input {_size(size.value)} ({size.source}), and is built for {_size(built.input_size)} "
            f"here: give {FLAGS['input_size']}"
        )
    own = T2T_OWNER if is_t2t(built.name) else f"timm's pretrained_cfg of {timm_name(built.name)}"
    if silent:
        own += f", as {silent} does not say"
    config = dataclasses.replace(built, **{field: k.value for field, k in known.items()})
    return config, {field: known[field].source if field in known else own for field in FLAGS}


def said_by(config: ModelConfig) -> dict[str, Any]:
    """What a file of weights says of its preprocessing, as `settle` reads it."""
    return {field: getattr(config, field) for field in FLAGS}


def told(config: ModelConfig, origins: Mapping[str, str]) -> str:
    """The line that commands begin with."""
    return f"preprocessing: {in_words(config, origins)}"


def in_words(config: ModelConfig, origins: Mapping[str, str]) -> str:
    """Every value with its source."""
    words: dict[str, list[str]] = {}
    for field in FLAGS:
        value, origin = getattr(config, field), origins.get(field, "not recorded")
        if field == "crop_mode" and value == ModelConfig.crop_mode:
            continue
        shown = f"input {_size(value)}" if field == "input_size" else f"{field} {_shown(value)}"
        words.setdefault(origin, []).append(shown)
    return "; ".join(f"{', '.join(values)} ({origin})" for origin, values in words.items())


def _said(said: Said, field: str) -> object:
    value = said.get(field)
    if field == "input_size" and value is None:
        value = said.get("img_size")  # timm's other name, for a square
    return None if isinstance(value, str) and not value else value


def _read(field: str, value: Any) -> Any:
    """A value as ModelConfig has it.

    Raises:
        ValueError: it cannot be; says why.
    """
    wrong = ValueError(f"{field} {value!r:.80} is not {_WANTED[field]}")
    try:
        if field == "input_size":
            size = (CHANNELS, value, value) if isinstance(value, int) else tuple(int(v) for v in value)
            allowed = len(size) == 3 and size[0] == CHANNELS and min(size) >= 1
            read: Any = size
        elif field in ("mean", "std"):
            parts = value.split(",") if isinstance(value, str) else value
            numbers = tuple(map(float, parts if isinstance(parts, list | tuple) else [parts]))
            read = numbers * CHANNELS if len(numbers) == 1 else numbers
            allowed = len(read) == CHANNELS and all(0 <= n <= 1 and (n > 0 or field == "mean") for n in read)
        elif field == "crop_pct":
            read = float(value)
            allowed = 0 < read <= LARGEST_CROP
        elif field == "interpolation":
            read, allowed = value, value in INTERPOLATION_NAMES
        else:
            read, allowed = value, value in _CROP_MODES
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several numbers
        raise wrong from None
    if not allowed:
        raise wrong
    return read


_CROP_MODES = ("center", "squash", "border")
_EACH = f"one number, or one for each of the {CHANNELS} channels,"
_WANTED = {
    "input_size": f"{CHANNELS} channels, height and width in pixels",
    "mean": f"{_EACH} from 0 to 1: divide means of 0..255 by 255",
    "std": f"{_EACH} above 0 and at most 1: divide deviations of 0..255 by 255",
    "crop_pct": f"a share above 0 and at most {LARGEST_CROP:g}",
    "interpolation": f"one of {', '.join(INTERPOLATION_NAMES)}",
    "crop_mode": f"one of {', '.join(_CROP_MODES)}",
}


def _same(one: Any, other: Any) -> bool:
    """Numbers that were float32 once are near to what was typed."""
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    if isinstance(one, tuple):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _way_out(field: str) -> str:
    return f"give the right one with {FLAGS[field]}" if FLAGS[field] else "correct the file"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size(size: tuple[int, int, int]) -> str:
    return f"{size[1]}x{size[2]}"
