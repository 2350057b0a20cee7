"""edge-t2t.toml and options: what wins, and that nothing unknown is taken."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.gate.rules import RULES
from pipeline.gate.settings import read_settings, settings_of

FILE = """
[check]
baseline = "baselines/t2t_vit_7.json"
inconclusive = "pass"

[check.rules.drop]
max_pp = 1.0
severity = "warn"

[check.rules.latency]
enabled = false

[check.models.t2t_vit_12.rules.drop]
max_pp = 2.0
"""


def test_options_win_over_the_model_over_the_file_over_the_defaults() -> None:
    document = tomllib.loads(FILE)
    assert settings_of({}, {}).for_model("t2t_vit_7")["drop"].limits == {"max_pp": 0.5}
    from_file = settings_of(document, {})
    assert from_file.for_model("t2t_vit_7")["drop"].limits == {"max_pp": 1.0}
    assert from_file.for_model("t2t_vit_12")["drop"].limits == {"max_pp": 2.0}
    assert from_file.for_model("t2t_vit_12")["drop"].severity == "warn"
    assert not from_file.for_model("t2t_vit_7")["latency"].enabled
    assert (from_file.inconclusive, from_file.baseline) == ("pass", "baselines/t2t_vit_7.json")
    with_options = settings_of(document, {"drop": {"max_pp": 3.0}}, "fail")
    assert with_options.for_model("t2t_vit_12")["drop"].limits == {"max_pp": 3.0}
    assert with_options.inconclusive == "fail"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[chek]", "unknown key 'chek', known are check. Did you mean 'check'?"),
        ("[check]\nbase = 1", "Did you mean 'baseline'?"),
        ("[check.rules.dropp]", "no rule 'dropp'"),
        ("[check.rules.drop]\nmax_p = 1", "Did you mean 'max_pp'?"),
        ("[check.rules.drop]\nmax_pp = -1", "max_pp is -1: give a number from 0 to 100"),
        ("[check.rules.drop]\nmax_pp = nan", "max_pp is nan: give a number"),
        ("[check.rules.drop]\nmax_pp = true", "max_pp is True: give a number"),
        ("[check.rules.drop]\nmax_pp = '1'", "max_pp is '1': give a number"),
        ("[check.rules.size]\nmax_ratio = inf", "max_ratio is inf"),
        ("[check.rules.partitions]\nmax = 1.5", "max is 1.5: give a whole number"),
        ("[check.rules.latency]\nother_processors = 1", "give true or false"),
        ("[check.rules.drop]\nenabled = 1", "give true or false"),
        ("[check.rules.drop]\nseverity = 'error'", "give fail or warn"),
        ("[check]\nrules = 1", "it is a table"),
        ("[check]\ninconclusive = 'maybe'", "give fail or pass"),
        ("[check]\nbaseline = 1", "give a path"),
        ("[check.models.t2t_vit_7.rule.drop]", "Did you mean 'rules'?"),
        ("[check.models.t2t_vit_7.rules.drp]", "no rule 'drp'"),
    ],
)
def test_what_is_unknown_or_impossible_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings_of(tomllib.loads(text), {})
    assert says in str(raised.value)
    assert "edge-t2t.toml" in str(raised.value) or "inconclusive" in str(raised.value)


def test_a_check_of_nothing_is_refused() -> None:
    off: dict[str, dict[str, Any]] = {name: {"enabled": False} for name in RULES}
    with pytest.raises(UsageError, match="leave one on"):
        settings_of({}, off).for_model("t2t_vit_7")


def test_the_file_of_this_folder_is_found_and_paths_start_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings(None, {}, None)[0].file == {}
    (tmp_path / "edge-t2t.toml").write_text(FILE)
    settings, _ = read_settings(None, {}, None)
    assert settings.file["drop"]["max_pp"] == 1.0
    monkeypatch.chdir("/")
    settings, folder = read_settings(tmp_path / "edge-t2t.toml", {}, None)
    assert folder / settings.baseline == tmp_path / "baselines" / "t2t_vit_7.json"  # type: ignore[operator]


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), ("[check", "is not valid TOML")])
def test_a_file_that_cannot_be_read_is_a_usage_error(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=says):
        read_settings(path, {}, None)


def test_what_is_shown_is_a_file_that_sets_the_same() -> None:
    settings = settings_of(tomllib.loads(FILE), {"size": {"max_ratio": 1.5}})
    text = settings.as_toml("check.rules", "t2t_vit_12")
    again = settings_of(tomllib.loads(text), {})
    assert again.for_model("t2t_vit_12") == settings.for_model("t2t_vit_12")
    lines = {line.split("  # ")[0]: line for line in text.splitlines()}
    assert "option" in lines["max_ratio = 1.5"]
    assert "edge-t2t.toml, t2t_vit_12" in lines["max_pp = 2.0"]
