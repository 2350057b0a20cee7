"""RunConfig: what `quantize` was asked for, and its way through JSON."""

from __future__ import annotations

import json

import pytest

from pipeline.config import OBSERVER_NAMES, RunConfig
from pipeline.errors import RunError, UsageError


def test_a_config_comes_back_from_json() -> None:
    config = RunConfig("t2t_vit_7", data="photos", epochs=3, limit_val=50, observer="mse", qk_scale=0.0625)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_another_version_is_named_with_the_nearest_key() -> None:
    with pytest.raises(RunError, match=r"'epoch' is unknown to this version. Did you mean 'epochs'"):
        RunConfig.from_dict({"model": "t2t_vit_7", "epoch": 3})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"observer": "minmax"}, "--observer 'minmax' is not one of moving-average, histogram, mse"),
        ({"observer": "hist"}, "Did you mean 'histogram'"),
        ({"amp": "fp16"}, "--amp 'fp16' is not one of auto, bf16, off"),
        ({"calibration_images": 0}, "--calibration-images is 0: give at least 1"),
        ({"limit_val": 0}, "--limit-val is 0"),
        ({"workers": -1}, "--workers is -1"),
        ({"float_epochs": -1}, "--float-epochs is -1"),
        ({"img_size": 8}, "--img-size is 8"),
        ({"checkpoint_steps": 0}, "--checkpoint-steps is 0"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RunConfig("t2t_vit_7", **values)  # type: ignore[arg-type]


def test_observer_names_are_those_that_exist() -> None:
    from pipeline.qat.observers import OBSERVERS

    assert tuple(OBSERVERS) == OBSERVER_NAMES
