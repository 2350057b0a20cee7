"""A run in, the small file that repeats it out; such a file and options that were given in, the options of a run out.

What is in a recipe decides the result: every option of RunConfig but those of the machine (device, threads, processes)
and paths. A data set or weights that have a name are named; a folder or file is not, and has to be given again.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.dataset import DIGITS
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.models.zoo import HUB_PREFIX
from pipeline.run.facts import SubjectFacts, read_subject
from pipeline.run.folder import Run
from pipeline.run.layout import RECIPE
from targets.words import suggest

SCHEMA = 1
#: Options that say where and how fast, not what comes out; a search is not repeated: its result is in the recipe.
NOT_REPEATED = ("device", "threads", "workers", "checkpoint_steps", "max_drop", "drop_targets", "rank_images")
#: Options that may be a path: then they are null.
PLACES = ("data", "weights")
NAMES = (DIGITS, "demo", "pretrained", "none")
#: Of the file.
KEYS = ("schema", "options", "made_by", "measured")


@dataclass(frozen=True)
class Recipe:
    """Options to repeat.

    Attributes:
        options: of RunConfig, by name; those that are not there take this version's defaults. None: to be given.
        made_by: run, digests of its data and weights, versions; what a repeated run is compared with.
        measured: budget and drops by program and file, with raw counts; None where nothing was searched.
    """

    options: Mapping[str, Any]
    made_by: Mapping[str, Any]
    measured: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        known = [f.name for f in dataclasses.fields(RunConfig) if f.name not in NOT_REPEATED]
        hints = typing.get_type_hints(RunConfig)
        for name, value in self.options.items():
            if name in NOT_REPEATED:
                raise UsageError(f"{name!r} is no part of a recipe: give it as an option of quantize")
            if name not in known:
                raise UsageError(f"the option {name!r} of the recipe is unknown.{suggest(name, known)}")
            if not (value is None and name in PLACES) and not _fits(value, hints[name]):
                raise UsageError(f"the option {name!r} of the recipe is {value!r}: expected {_name(hints[name])}")
        if "model" not in self.options:
            raise UsageError("the recipe names no model: add it to its options")

    def config(self, given: Mapping[str, Any]) -> RunConfig:
        """RunConfig of these options, those in `given` (by the name of the field) before them.

        Raises:
            UsageError: data or weights that the recipe was made with were a path, and are not given.
        """
        options = {**self.options, **given}
        if options.get("weights") == "demo" and "weights" not in given and given.get("data", DIGITS) != DIGITS:
            options["weights"] = ""  # other data never gets the weights of the digits unasked
        for name in PLACES:
            if options.get(name, "") is None:
                raise UsageError(f"the recipe was made with --{name} that is a path and no part of it: give --{name}")
        return RunConfig(**options)


def write_recipe(run: Run, config: RunConfig, measured: Mapping[str, Any] | None = None, **found: Any) -> None:
    """recipe.json of a finished run, atomically, and listed in the manifest.

    Args:
        found: options that came out of the run and repeat it (`float_after_training`).
    """
    subject = read_subject(run)
    values = json.loads(json.dumps({**config.to_dict(), **found}))  # tuples as JSON has them
    options = {name: value for name, value in values.items() if name not in NOT_REPEATED}
    for name in PLACES:
        if options[name] and _is_path(str(options[name])):
            options[name] = None
    made_by = {
        "run": run.id,
        "train_digest": subject.data.train_digest,
        "val_digest": subject.data.val_digest,
        "weights_sha256": subject.weights.sha256,
    }
    write_json(run.path / RECIPE, {"schema": SCHEMA, "options": options, "made_by": made_by, "measured": measured})
    run.record(RECIPE)


def read_recipe(path: Path) -> Recipe:
    """
    Raises:
        UsageError: no such file, not a recipe of this version, or an option that RunConfig has not; names the key.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no recipe {path}: every finished run has one, {RECIPE} in its folder") from None
    except IsADirectoryError:
        raise UsageError(f"the recipe {path} is a folder: give the file, {path / RECIPE} of a run") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} is not valid JSON ({error}): restore it") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        seen = data.get("schema") if isinstance(data, dict) else None
        raise UsageError(f"the recipe {path} has schema {seen!r}, this version reads {SCHEMA}")
    for key in data:
        if key not in KEYS:
            raise UsageError(f"the recipe {path} has an unknown key {key!r}.{suggest(key, KEYS)}")
    if not isinstance(data.get("options"), dict):
        raise UsageError(f"the recipe {path} has no options")
    return Recipe(data["options"], data.get("made_by") or {}, data.get("measured"))


def other_than(recipe: Recipe, subject: SubjectFacts) -> list[str]:
    """Sentences on what differs from the run that made the recipe: then its figures are not to be expected.

    Args:
        subject: of the new run.
    """
    now = {
        "train_digest": ("training images", subject.data.train_digest),
        "val_digest": ("validation images", subject.data.val_digest),
        "weights_sha256": ("float weights", subject.weights.sha256),
    }
    return [
        f"these are other {what} than those that the recipe was made with: its figures will not come out again"
        for key, (what, digest) in now.items()
        if key in recipe.made_by and recipe.made_by[key] != digest
    ]


def _is_path(place: str) -> bool:
    """Of data or weights: no name that means the same on every machine. A reader's prefix ("wds/") may stand before."""
    if place in NAMES or place.startswith(HUB_PREFIX):
        return False
    return any(Path(path).exists() for path in (place, place.partition("/")[2] or place))


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is types.NoneType:
        return value is None
    return type(value) is hint or (hint is float and type(value) is int)


def _name(hint: Any) -> str:
    """ "float or null", "list of str"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return " or ".join(map(_name, arguments))
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    return "null" if hint is types.NoneType else str(hint.__name__)
