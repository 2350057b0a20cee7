"""Recipes: what is in them, what they refuse, and that a run repeats its options."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import main_py
from made_up_facts import write_made_up_facts

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.run.facts import read_subject
from pipeline.run.folder import Run, create_run
from pipeline.run.layout import RECIPE
from pipeline.run.recipe import NOT_REPEATED, Recipe, other_than, read_recipe, write_recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create_run(tmp_path / "runs", "t2t_vit_7")
    write_made_up_facts(run, train_digest="a" * 64, val_digest="b" * 64, weights_sha256="c" * 64)
    return run


def written(run: Run, config: RunConfig, **found: Any) -> Recipe:
    write_recipe(run, config, None, **found)
    return read_recipe(run.file(RECIPE))


def test_every_option_that_decides_the_result_comes_back(run: Run) -> None:
    config = RunConfig(
        "t2t_vit_7",
        epochs=3,
        lr=2e-5,
        float_layers=("a",),
        float_after_training=("b",),
        img_size=96,
        seed=5,
        observer="mse",
        qk_scale=0.5,
    )
    assert written(run, config).config({}) == config


def test_the_machine_and_the_search_are_no_part_of_it(run: Run) -> None:
    config = RunConfig("t2t_vit_7", device="cpu", threads=3, workers=2, checkpoint_steps=7, max_drop=0.3, seed=1)
    recipe = written(run, config, float_after_training=["x"])
    assert not set(recipe.options) & set(NOT_REPEATED)
    assert recipe.config({}) == RunConfig("t2t_vit_7", float_after_training=("x",), seed=1)
    names = {field.name for field in fields(RunConfig)}
    assert set(recipe.options) == names - set(NOT_REPEATED)


def test_what_is_given_beats_the_recipe(run: Run) -> None:
    recipe = written(run, RunConfig("t2t_vit_7", epochs=3, lr=2e-5))
    config = recipe.config({"epochs": 9, "threads": 2, "max_drop": 0.5})
    assert (config.epochs, config.lr, config.threads, config.max_drop) == (9, 2e-5, 2, 0.5)


def test_paths_are_not_in_it_and_must_be_given(run: Run, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.touch()
    recipe = written(run, RunConfig("t2t_vit_7", data=str(tmp_path), weights=str(weights)))
    assert str(tmp_path) not in (run.path / RECIPE).read_text()
    with pytest.raises(UsageError, match="give --data"):
        recipe.config({"weights": "demo"})
    with pytest.raises(UsageError, match="give --weights"):
        recipe.config({"data": "digits"})
    assert recipe.config({"data": "digits", "weights": "demo"}) == RunConfig("t2t_vit_7", weights="demo")


def test_other_data_does_not_get_the_digits_weights_of_a_recipe() -> None:
    recipe = Recipe({"model": "t2t_vit_7", "data": "digits", "weights": "demo"}, {})
    assert recipe.config({"data": "photos"}).weights == ""  # the default of other data
    assert recipe.config({"data": "photos", "weights": "demo"}).weights == "demo"
    assert recipe.config({"data": "digits"}).weights == "demo"


def test_shards_in_a_folder_are_a_path_and_digits_are_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "demo", "shards"):
        (tmp_path / name).mkdir()
    assert written(run, RunConfig("t2t_vit_7")).config({}) == RunConfig("t2t_vit_7")
    assert written(run, RunConfig("t2t_vit_7", data=f"wds/{tmp_path}/shards")).options["data"] is None
    assert written(run, RunConfig("t2t_vit_7", data="wds/shards")).options["data"] is None


def test_names_of_data_and_weights_are_in_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = written(run, RunConfig("t2t_vit_7", data="torch/cifar10", weights="pretrained"))
    assert (recipe.options["data"], recipe.options["weights"]) == ("torch/cifar10", "pretrained")
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert written(run, RunConfig("resnet10t", weights="hf-hub:me/pets")).options["weights"] == "hf-hub:me/pets"


def test_a_short_recipe_takes_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"schema": 1, "options": {"model": "t2t_vit_7", "lr": 1, "float_layers": ["head"]}}')
    assert read_recipe(path).config({}) == RunConfig("t2t_vit_7", lr=1.0, float_layers=("head",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "option 'epoch' of the recipe is unknown. Did you mean 'epochs'"),
        ({"epochs": "3"}, "option 'epochs' of the recipe is '3': expected int"),
        ({"epochs": True}, "option 'epochs' of the recipe is True: expected int"),
        ({"epochs": None}, "option 'epochs' of the recipe is None: expected int"),
        ({"max_steps": 1.5}, "option 'max_steps' of the recipe is 1.5: expected int or null"),
        ({"float_layers": "head"}, "option 'float_layers' of the recipe is 'head': expected list of str"),
        ({"float_layers": [1]}, "expected list of str"),
        ({"threads": 1}, "'threads' is no part of a recipe"),
        ({"model": None}, "option 'model' of the recipe is None: expected str"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"schema": 1, "options": {"model": "t2t_vit_7", **options}}))
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has schema None, this version reads 1"),
        ('{"schema": 2}', "has schema 2, this version reads 1"),
        ('{"schema": 1}', "has no options"),
        ('{"schema": 1, "options": {}}', "names no model"),
        ('{"schema": 1, "option": {}}', "unknown key 'option'. Did you mean 'options'"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        read_recipe(path)
    with pytest.raises(UsageError, match="is a folder"):
        read_recipe(tmp_path)
    with pytest.raises(UsageError, match=r"there is no recipe .*gone\.json"):
        read_recipe(tmp_path / "gone.json")


def test_other_images_and_weights_are_told(run: Run) -> None:
    recipe = written(run, RunConfig("t2t_vit_7"))
    subject = read_subject(run)
    assert other_than(recipe, subject) == []
    other = replace(
        subject,
        data=replace(subject.data, val_digest="0" * 64),
        weights=replace(subject.weights, sha256=None),
    )
    assert [line.split(" than")[0] for line in other_than(recipe, other)] == [
        "these are other validation images",
        "these are other float weights",
    ]
    assert other_than(Recipe({"model": "x"}, {}), other) == []  # written by hand: nothing to compare with


@pytest.mark.parametrize(
    "wrong", [{"max_drop": -0.1}, {"max_drop": 100.0}, {"drop_targets": ("tflite",)}, {"rank_images": 0}]
)
def test_impossible_searches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--(max-drop|drop-target|rank-images) "):
        RunConfig("t2t_vit_7", **wrong)


def test_a_run_config_comes_back_from_json() -> None:
    config = RunConfig(
        "m", float_layers=("a",), float_after_training=("b", "c"), max_drop=0.3, drop_targets=("tflite",)
    )
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"model": "t2t_vit_7"}, "demo"),
        ({"model": "t2t_vit_7", "data": "photos"}, "pretrained"),  # the bundled weights know ten digits
        ({"model": "resnet10t"}, "pretrained"),
        ({"model": "resnet10t", "weights": "none"}, "none"),
        ({"model": "t2t_vit_7", "data": "photos", "weights": "demo"}, "demo"),
    ],
)
def test_weights_that_a_recipe_does_not_name_are_those_of_the_command_line(
    options: dict[str, Any], weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RunConfig] = []

    def start(config: RunConfig, runs_dir: Path) -> None:
        started.append(config)
        raise UsageError("far enough")

    monkeypatch.setattr("pipeline.quantization.qat.start", start)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"schema": 1, "options": options}))
    typed = [f"--{name}={value}" for name, value in options.items() if name != "model"]
    for arguments in (["--recipe", path], [options["model"], *typed]):
        assert "far enough" in main_py("quantize", *arguments, "--runs-dir", tmp_path).err
    assert [config.weights for config in started] == [weights] * 2
    assert started[0] == started[1]


def test_a_recipe_and_a_config_of_an_earlier_version_are_read(run: Run) -> None:
    """Flat keys, as runs have had them since they were first written."""
    config = RunConfig("t2t_vit_7", weights="demo", epochs=3, float_lr=1e-3, threads=2)
    flat = json.loads(json.dumps(config.to_dict()))
    assert set(flat) == {
        "model", "data", "weights", "form", "epochs", "float_epochs", "batch_size", "lr", "float_lr", "weight_decay",
        "label_smoothing", "clip_norm", "max_steps", "observer", "observer_freeze", "batch_norm_freeze", "accumulate",
        "ema", "dropout", "distill", "temperature", "distill_features", "ranges", "equalize", "bias_correction",
        "float_layers", "float_after_training", "max_drop", "drop_targets", "rank_images", "channels_last", "compile",
        "calibration_images", "qk_scale", "img_size", "limit_val", "skip_bad", "seed", "device", "amp", "threads",
        "workers", "checkpoint_steps", "keep", "adaptive_rounding", "mean", "std", "crop_pct", "interpolation",
    }  # fmt: skip
    assert not any(isinstance(value, dict) for value in flat.values())
    assert RunConfig.from_dict(flat) == config
    younger = ("keep", "adaptive_rounding", "mean", "std", "crop_pct", "interpolation")  # than the others
    assert RunConfig.from_dict({k: v for k, v in flat.items() if k not in younger}) == config
    assert written(run, config).config({"threads": 2}) == config
