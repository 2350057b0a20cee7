"""RunConfig: what `quantize` was asked for, and its way through JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from calibration.dataset import DataError
from pipeline.config import OBSERVER_NAMES, RunConfig
from pipeline.errors import (
    BelowBarError,
    CellsFailedError,
    RunError,
    TrainingError,
    UsageError,
    WeightsError,
    exit_code_of,
)
from targets.codec import RecordError
from targets.registry import UnknownTarget
from targets.types import TargetError
from targets.words import suggest


def test_a_config_comes_back_from_json() -> None:
    config = RunConfig("t2t_vit_7", data="photos", epochs=3, limit_val=50, observer="mse", qk_scale=0.0625)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_without_a_model_is_told() -> None:
    with pytest.raises(RunError, match="names no model"):
        RunConfig.from_dict({"epochs": 3})


def test_a_config_of_another_version_is_named_with_the_nearest_key() -> None:
    with pytest.raises(RunError, match=r"'epoch' is unknown to this version. Did you mean 'epochs'"):
        RunConfig.from_dict({"model": "t2t_vit_7", "epoch": 3})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"observer": "minmax"}, "--observer 'minmax' is not one of moving-average, histogram, percentile, mse"),
        ({"observer": "hist"}, "Did you mean 'histogram'"),
        ({"form": "fast"}, "--form 'fast' is not one of deploy, official"),
        ({"form": "deply"}, "Did you mean 'deploy'"),
        ({"amp": "fp8"}, "--amp 'fp8' is not one of auto, bf16, fp16, off"),
        ({"calibration_images": 0}, "--calibration-images is 0: give at least 1"),
        ({"limit_val": 0}, "--limit-val is 0"),
        ({"workers": -1}, "--workers is -1"),
        ({"float_epochs": -1}, "--float-epochs is -1"),
        ({"img_size": 8}, "--img-size is 8"),
        ({"checkpoint_steps": 0}, "--checkpoint-steps is 0"),
        ({"threads": -2}, "--threads is -2"),
        ({"float_lr": 0.0}, "--float-lr is 0.0: give a number above 0"),
        ({"float_lr": float("nan")}, "--float-lr is nan"),
        ({"qk_scale": 0.0}, "--qk-scale is 0.0: give a number above 0"),
        ({"qk_scale": float("inf")}, "--qk-scale is inf"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RunConfig("t2t_vit_7", **values)  # type: ignore[arg-type]


def test_a_run_that_knows_no_forms_has_the_official_one() -> None:
    """Its programs are of that form; calibrating another one (convert --ptq) would compare apples and oranges."""
    values = RunConfig("t2t_vit_7").to_dict()
    assert RunConfig.from_dict(values).form == "deploy"
    del values["form"]
    assert RunConfig.from_dict(values).form == "official"


def test_observer_names_are_those_that_exist() -> None:
    from pipeline.quantization.observers import OBSERVERS

    assert tuple(OBSERVERS) == OBSERVER_NAMES


def test_the_smallest_values_that_make_sense_are_taken() -> None:
    config = RunConfig(
        "t2t_vit_7", limit_val=1, float_epochs=0, img_size=16, calibration_images=1, epochs=0, qk_scale=1e-3
    )
    assert (config.limit_val, config.float_epochs, config.qk_scale) == (1, 0, 1e-3)


def test_a_config_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig("t2t_vit_7").epochs = -1  # type: ignore[misc]


def test_errors_have_the_exit_codes_that_are_promised() -> None:
    """Errors of the packages below the pipeline too; what nobody foresaw has none, and shows its traceback."""
    promised = {
        UsageError: 2,
        UnknownTarget: 2,
        DataError: 3,
        WeightsError: 4,
        TrainingError: 5,
        CellsFailedError: 6,
        TargetError: 6,
        RunError: 7,
        RecordError: 7,
        BelowBarError: 8,
        KeyError: None,
        OSError: None,
    }
    assert {kind: exit_code_of(kind.__new__(kind)) for kind in promised} == promised


def test_only_a_near_name_is_suggested() -> None:
    assert suggest("mobilenet_v3", ["t2t_vit_7", "mobilenet_v2"]) == " Did you mean 'mobilenet_v2'?"
    assert suggest("xyz", ["t2t_vit_7", "mobilenet_v2"]) == ""
    assert suggest("xyz", iter(())) == ""
