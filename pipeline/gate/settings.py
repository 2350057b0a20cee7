"""The settings of the gate: `edge-t2t.toml` and options, read, checked and written back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pipeline.errors import UsageError
from pipeline.gate.records import SEVERITIES, Inconclusive, Severity
from pipeline.gate.rules import RULES
from targets.words import suggest

FILE = "edge-t2t.toml"
SWITCHES = ("enabled", "severity")  # of every rule, beside its budgets
#: rule -> key -> value, of what was set and no more
Given = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RuleSetting:
    """One rule as it is in force."""

    enabled: bool
    severity: Severity
    limits: Mapping[str, float | None]


@dataclass(frozen=True)
class Settings:
    """What is in force, from weakest to strongest: defaults, the file's rules, its rules for one model, options.

    Attributes:
        baseline: path in the file, relative to that file.
    """

    file: Given
    models: Mapping[str, Given]
    options: Given
    inconclusive: Inconclusive = "fail"
    baseline: str | None = None

    def for_model(self, model: str) -> dict[str, RuleSetting]:
        """Every rule, in the order of the table.

        Raises:
            UsageError: all rules are off.
        """
        layers = (self.file, self.models.get(model, {}), self.options)
        chosen = {name: _rule_setting(name, [layer.get(name, {}) for layer in layers]) for name in RULES}
        if not any(setting.enabled for setting in chosen.values()):
            raise UsageError(f"every rule is off for {model}: a check of nothing passes always; leave one on")
        return chosen

    def as_toml(self, table: str, model: str) -> str:
        """Every value of every rule with where it comes from, one TOML table a rule below `table` ("check.rules")."""
        lines = []
        for name, setting in self.for_model(model).items():
            rule = RULES[name]
            lines.append(f"[{table}.{name}]  # {rule.says}")
            for key, value in {"enabled": setting.enabled, "severity": setting.severity, **setting.limits}.items():
                limit = rule.limits.get(key)
                means = " ".join(filter(None, (limit.unit, limit.says))) if limit else ""
                comment = "; ".join(filter(None, (self._source(model, name, key), means)))
                given = f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"  # as in JSON
                lines.append(f"{given}  # {comment}")
            lines.append("")
        return "\n".join(lines)

    def _source(self, model: str, rule: str, key: str) -> str:
        layers = {"option": self.options, f"{FILE}, {model}": self.models.get(model, {}), FILE: self.file}
        return next((name for name, layer in layers.items() if key in layer.get(rule, {})), "default")


def settings_of(
    document: Mapping[str, Any], options: Given, inconclusive: str | None = None, where: str = FILE
) -> Settings:
    """The parsed file and the options, checked.

    Args:
        document: what tomllib made of the file; empty without one.
        options: of the command line.

    Raises:
        UsageError: an unknown key, with the nearest known one; a value that the key does not take.
    """
    _table(document, where, ("check",))
    check = _table(document.get("check", {}), f"{where}: [check]", ("baseline", "inconclusive", "rules", "models"))
    per_model = {}
    for model, given in _table(check.get("models", {}), f"{where}: [check.models]").items():
        table = _table(given, f"{where}: [check.models.{model}]", ("rules",))
        per_model[model] = _rules(table.get("rules", {}), f"check.models.{model}.rules", where)
    baseline = check.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        raise UsageError(f"{where}: baseline is {baseline!r}: give a path")
    chosen = inconclusive or check.get("inconclusive", "fail")
    if chosen not in get_args(Inconclusive):
        raise UsageError(f"inconclusive is {chosen!r}: give {' or '.join(get_args(Inconclusive))}")
    return Settings(
        file=_rules(check.get("rules", {}), "check.rules", where),
        models=per_model,
        options=_rules(options, "options", "command line"),
        inconclusive=cast(Inconclusive, chosen),
        baseline=baseline,
    )


def _rules(tables: object, prefix: str, where: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, values in _table(tables, f"{where}: [{prefix}]").items():
        if name not in RULES:
            raise UsageError(f"{where}: there is no rule {name!r}, known are {', '.join(RULES)}.{suggest(name, RULES)}")
        place = f"{where}: [{prefix}.{name}]"
        for key, value in _table(values, place, (*SWITCHES, *RULES[name].limits)).items():
            if wanted := _refusal(name, key, value):
                raise UsageError(f"{place} {key} is {value!r}: give {wanted}")
        found[name] = dict(values)
    return found


def _refusal(rule: str, key: str, value: object) -> str | None:
    if key == "enabled":
        return None if isinstance(value, bool) else "true or false"
    if key == "severity":
        return None if value in SEVERITIES else " or ".join(SEVERITIES)
    return RULES[rule].limits[key].refusal(value)


def _rule_setting(name: str, layers: list[Mapping[str, Any]]) -> RuleSetting:
    merged: dict[str, Any] = {"enabled": True, "severity": "fail"}
    merged |= {key: limit.default for key, limit in RULES[name].limits.items()}
    for layer in layers:
        merged |= layer
    return RuleSetting(merged.pop("enabled"), merged.pop("severity"), merged)


def _table(value: object, place: str, names: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    """`value` as a table of TOML, all keys of which are among `names` if these are given."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{place} is {value!r}: it is a table of keys")
    for key in value:
        if names is not None and key not in names:
            raise UsageError(f"{place} has an unknown key {key!r}, known are {', '.join(names)}.{suggest(key, names)}")
    return value


def read_settings(config: Path | None, options: Given, inconclusive: str | None) -> tuple[Settings, Path]:
    """
    Args:
        config: None takes `edge-t2t.toml` of the present folder where there is one, else the defaults.

    Raises:
        UsageError: no such file, no TOML, or a key or value that is not known.
    """
    path = config or Path(FILE)
    if config is None and not path.is_file():
        return settings_of({}, options, inconclusive), Path()
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    return settings_of(document, options, inconclusive, str(path)), path.parent
