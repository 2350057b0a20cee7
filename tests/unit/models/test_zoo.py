"""The table of models: names, suggestions, and the figures that can be counted here."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.models.build import build
from pipeline.models.zoo import ZOO, ZooEntry, check_name, is_t2t, plain_name, timm_name

NAMES = ["t2t_vit_7", "t2t_vit_10", "t2t_vit_12", "mobilenet_v2"]


def test_names_and_families() -> None:
    assert list(ZOO) == NAMES
    assert [entry.name for entry in ZOO.values()] == NAMES
    assert [name for name in NAMES if is_t2t(name)] == NAMES[:3]
    assert [ZOO[name].depth for name in NAMES] == [7, 10, 12, None]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_counted_on_the_built_model_are_those_of_the_table(name: str) -> None:
    model, config = build(name, 1000)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == ZOO[name].params_millions
    assert config.num_classes == 1000
    assert config.input_size == (3, 224, 224)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("t2t_vit_11", "t2t_vit_1"), ("t2tvit_7", "t2t_vit_7"), ("mobilnet_v2", "mobilenet_v2"), ("resnt50", "resnet50")],
)
def test_unknown_name_suggests_the_nearest(typo: str, nearest: str) -> None:
    for use in (check_name, timm_name):
        with pytest.raises(UsageError) as caught:
            use(typo)
        assert f"model {typo!r} is neither in the zoo (t2t_vit_7, " in str(caught.value)
        assert f"Did you mean '{nearest}" in str(caught.value)


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(UsageError, match=r"main\.py models") as caught:
        check_name("#########")
    assert "Did you mean" not in str(caught.value)


def test_names_with_the_hub_before_them_are_timms() -> None:
    assert plain_name("timm/resnet10t.c3_in1k") == plain_name("hf-hub:timm/resnet10t.c3_in1k") == "resnet10t.c3_in1k"
    assert plain_name("t2t_vit_7") == "t2t_vit_7"
    with pytest.raises(UsageError, match="give --weights hf-hub:me/pets"):
        plain_name("hf-hub:me/pets")


def test_unknown_tag_of_a_known_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'mobilenetv2_100\.ra_in1k'"):
        check_name("mobilenetv2_100.ra_in2k")


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_100.ra_in1k"])
def test_timm_names_are_taken_as_they_are(name: str) -> None:
    check_name(name)
    assert timm_name(name) == name
    assert not is_t2t(name)


def test_zoo_name_of_a_timm_model_carries_the_tag_of_its_weights() -> None:
    assert timm_name("mobilenet_v2") == "mobilenetv2_100.ra_in1k"


def test_where_pretrained_weights_come_from_is_readable() -> None:
    assert ZOO["t2t_vit_7"].pretrained_source.endswith("/71.7_T2T_ViT_7.pth.tar")
    assert ZOO["mobilenet_v2"].pretrained_source == "timm hub: mobilenetv2_100.ra_in1k"
    assert [f"{ZOO[name].top1_percent}_T2T_ViT_{ZOO[name].depth}.pth.tar" for name in NAMES[:3]] == [
        str(ZOO[name].pretrained_url).rsplit("/", 1)[1] for name in NAMES[:3]
    ]  # the authors put the accuracy into the file name


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_an_entry_is_of_one_family(entry: ZooEntry) -> None:
    """A T2T-ViT has a depth and the authors' weights, a timm model has a name there."""
    is_t2t = entry.family == "t2t"
    assert (entry.depth is not None) == (entry.pretrained_url is not None) == is_t2t
    assert bool(entry.timm_name) != is_t2t
