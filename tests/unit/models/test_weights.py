"""Weights into models: what is kept of a file, which scale it needs, which sources and files are refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from alive import alive_images
from known_weights import CLASSES, NAME, OWN_SCALE, SIDE, Made, assert_equal_tensors, logits, make
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import UsageError, WeightsError
from pipeline.files import sha256_of
from pipeline.models.build import build
from pipeline.models.checkpoint import PICKLE_SUFFIXES
from pipeline.models.t2t_vit import PUBLISHED_QK_SCALE, resize_position_embedding
from pipeline.models.weights import load_model, load_weights, peek, save_weights
from pipeline.models.zoo import ZOO


@pytest.fixture(scope="module")
def made() -> Made:
    return make()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return alive_images(2, SIDE)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_published_file_gives_the_logits_of_its_model(made: Made, images: Tensor, tmp_path: Path) -> None:
    """A release file as the authors wrote it: DistributedDataParallel names, averaged weights beside the others."""
    published = make(seed=1, qk_scale=PUBLISHED_QK_SCALE)
    content = {
        "arch": "t2t_vit_7",
        "args": argparse.Namespace(lr=1e-3),
        "state_dict": {f"module.{k}": v for k, v in made.state.items()},
        "state_dict_ema": {f"module.{k}": v for k, v in published.state.items()},
    }
    path = saved(content, tmp_path / "71.7_T2T_ViT_7.pth.tar")
    loaded = load_model(NAME, path, img_size=SIDE)
    assert torch.equal(logits(loaded.model, images), logits(published.model, images))
    assert loaded.config.num_classes == 4
    assert loaded.record.container == "state_dict_ema"
    assert not loaded.record.head_replaced
    assert not loaded.record.position_embedding_resized


def test_file_of_another_model_names_counts_and_first_keys(made: Made, tmp_path: Path) -> None:
    other, _ = build("resnet10t", 4)
    path = saved({"state_dict": other.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        load_model(NAME, path, 4, SIDE)
    message = str(caught.value)
    own, foreign = made.state, other.state_dict()
    assert f"{path} (state_dict) does not fit {NAME}, which has {len(own)} tensors" in message
    assert f"{len(own)} missing ({', '.join(list(own)[:3])}, ...)" in message
    assert f"{len(foreign)} unexpected ({', '.join(list(foreign)[:3])}, ...)" in message


def test_deeper_t2t_model_names_the_surplus_block(made: Made, tmp_path: Path) -> None:
    deeper = {k.replace("blocks.6.", "blocks.7."): v for k, v in made.state.items() if "blocks.6." in k}
    path = saved(made.state | deeper, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"{len(deeper)} unexpected \(blocks\.7\.norm1\.weight, ") as caught:
        load_model(NAME, path, 4, SIDE)
    assert "missing" not in str(caught.value)


def test_tensor_of_another_shape_gives_both_shapes(made: Made, tmp_path: Path) -> None:
    path = saved(made.state | {"blocks.0.mlp.fc1.weight": torch.zeros(768, 256)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 with another shape \(blocks\.0\.mlp\.fc1\.weight \(file 768x256, model"):
        load_model(NAME, path, 4, SIDE)


def test_head_on_another_embedding_width_is_not_taken_for_other_classes(made: Made, tmp_path: Path) -> None:
    path = saved(made.state | {"head.weight": torch.zeros(9, 384), "head.bias": torch.zeros(9)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"head\.weight \(file 9x384, model 4x256\)"):
        load_model(NAME, path, 4, SIDE)


def test_one_missing_tensor_is_named_alone(made: Made, tmp_path: Path) -> None:
    state = made.state
    del state["cls_token"]
    with pytest.raises(WeightsError, match=r"1 missing \(cls_token\)\. Is it"):
        load_model(NAME, saved(state, tmp_path / "w.pth"), 4, SIDE)


@pytest.fixture(scope="module")
def file(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_weights(made.model, made.config, path, CLASSES)
    return path


def body(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("head.")}


@pytest.mark.parametrize(
    ("num_classes", "names", "replaced"),
    [
        (6, None, True),
        (6, tuple("abcdef"), True),
        (4, None, False),
        (4, CLASSES, False),
        (4, list(CLASSES), False),
        (4, ("ant", "bee", "café", "cat"), True),
        (4, ("bee", "ant", "café", "dog"), True),  # the same names in another order are other labels
    ],
)
def test_head_is_kept_only_for_the_same_classes(
    num_classes: int, names: tuple[str, ...] | None, replaced: bool, made: Made, file: Path
) -> None:
    fresh = make(seed=9, num_classes=num_classes)
    before = {key: value.clone() for key, value in fresh.state.items()}
    record = load_weights(fresh.model, fresh.config, file, classes=names)
    assert record.head_replaced is replaced
    assert_equal_tensors(body(fresh.state), body(made.state))
    head = before if replaced else made.state
    for key in ("head.weight", "head.bias"):
        assert torch.equal(fresh.state[key], head[key])


def test_a_model_is_built_for_the_classes_that_are_named(made: Made, file: Path) -> None:
    assert not load_model(NAME, file, CLASSES, SIDE).record.head_replaced
    assert load_model(NAME, file, CLASSES[::-1], SIDE).record.head_replaced
    assert load_model(NAME, file, ("ant", "dog"), SIDE).config.num_classes == 2


def test_names_cannot_be_compared_with_a_file_that_has_none(made: Made, tmp_path: Path) -> None:
    fresh = make(seed=9, qk_scale=PUBLISHED_QK_SCALE)
    path = saved(made.state, tmp_path / "w.pth")
    assert not load_weights(fresh.model, fresh.config, path, classes=("w", "x", "y", "z")).head_replaced
    assert torch.equal(fresh.state["head.weight"], made.state["head.weight"])


def test_head_of_a_timm_model_is_found_under_its_own_name(tmp_path: Path) -> None:
    donor, _ = build("resnet10t", 5)
    path = saved(donor.state_dict(), tmp_path / "w.pth")
    assert peek(path, "resnet10t").num_classes == 5
    loaded = load_model("resnet10t", path, 3)
    assert loaded.record.head_replaced
    assert loaded.model.state_dict()["fc.weight"].shape[0] == 3
    assert torch.equal(loaded.model.state_dict()["conv1.0.weight"], donor.state_dict()["conv1.0.weight"])


def test_position_embedding_is_resized_for_another_image_size(made: Made, file: Path) -> None:
    loaded = load_model(NAME, file, img_size=64)
    assert loaded.record.position_embedding_resized
    assert not loaded.record.head_replaced
    seen = dict(loaded.model.state_dict())
    assert torch.equal(seen.pop("pos_embed"), resize_position_embedding(made.state["pos_embed"], 17))
    expected = made.state
    del expected["pos_embed"]
    assert_equal_tensors(seen, expected)


def test_files_without_metadata_get_the_scale_of_the_published_ones(made: Made, tmp_path: Path) -> None:
    save_file(made.state, tmp_path / "bare.safetensors")
    for path in (saved(made.state, tmp_path / "w.pth"), tmp_path / "bare.safetensors"):
        assert peek(path, NAME).qk_scale == PUBLISHED_QK_SCALE
        assert load_model(NAME, path, img_size=SIDE).model.qk_scale == PUBLISHED_QK_SCALE


def test_fresh_model_has_the_scale_of_the_head_width() -> None:
    assert peek("none", NAME).qk_scale is None
    loaded = load_model(NAME, "none", 4, SIDE)
    assert loaded.config.qk_scale == loaded.model.qk_scale == loaded.record.qk_scale == 64**-0.5


def test_saved_file_keeps_its_scale(file: Path, made: Made, images: Tensor) -> None:
    assert peek(file, NAME).qk_scale == OWN_SCALE
    loaded = load_model(NAME, file, img_size=SIDE)
    assert loaded.config.qk_scale == loaded.record.qk_scale == OWN_SCALE
    assert torch.equal(logits(loaded.model, images), logits(made.model, images))


def test_choice_of_the_user_wins_and_changes_the_logits(file: Path, made: Made, images: Tensor) -> None:
    assert peek(file, NAME, qk_scale=0.2).qk_scale == 0.2
    loaded = load_model(NAME, file, img_size=SIDE, qk_scale=0.2)
    assert loaded.config.qk_scale == loaded.record.qk_scale == 0.2
    expected = make(qk_scale=0.2)
    assert torch.equal(logits(loaded.model, images), logits(expected.model, images))
    assert not torch.equal(logits(loaded.model, images), logits(made.model, images))


def test_model_built_with_another_scale_than_the_file_is_refused(file: Path) -> None:
    other = make(qk_scale=0.2)
    with pytest.raises(WeightsError, match=r"needs qk_scale 0\.11, but the model was built with 0\.2"):
        load_weights(other.model, other.config, file)
    load_weights(other.model, other.config, file, other_qk_scale=True)


def test_scale_that_is_no_number_is_told(made: Made, tmp_path: Path) -> None:
    save_file(made.state, tmp_path / "w.safetensors", metadata={"qk_scale": "root"})
    with pytest.raises(WeightsError, match=r"`qk_scale` is not a number \('root'\)"):
        peek(tmp_path / "w.safetensors", NAME)


@pytest.mark.parametrize("text", ["nan", "-0.1", "0", "inf"])
def test_scale_that_no_attention_can_have_is_told(text: str, made: Made, tmp_path: Path) -> None:
    save_file(made.state, tmp_path / "w.safetensors", metadata={"qk_scale": text})
    with pytest.raises((WeightsError, UsageError), match="qk_scale"):
        load_model(NAME, tmp_path / "w.safetensors", img_size=SIDE)


def test_other_models_have_no_scale(tmp_path: Path) -> None:
    model, config = build("resnet10t", 4)
    path = tmp_path / "w.safetensors"
    save_weights(model, config, path, CLASSES)
    assert peek(path, "resnet10t").qk_scale is None
    assert load_model("resnet10t", path).record.qk_scale is None
    with pytest.raises(UsageError, match="has no qk_scale"):
        load_model("resnet10t", path, qk_scale=0.1)


def test_file_written_for_another_model_is_refused_before_it_is_loaded(file: Path) -> None:
    for use in (lambda: peek(file, "t2t_vit_10"), lambda: load_model("t2t_vit_10", file)):
        with pytest.raises(WeightsError, match="holds weights of t2t_vit_7, not of t2t_vit_10"):
            use()


@pytest.mark.parametrize("text", ["not json", '{"a": 1}', "[1, 2]"])
def test_class_names_that_are_no_list_of_names_are_told(text: str, made: Made, tmp_path: Path) -> None:
    save_file(made.state, tmp_path / "w.safetensors", metadata={"classes": text})
    with pytest.raises(WeightsError, match="`classes` is not a JSON list of names"):
        peek(tmp_path / "w.safetensors", NAME)


@pytest.mark.parametrize(
    ("word", "nearest"), [("dmeo", "demo"), ("pretrain", "pretrained"), ("petrained", "pretrained"), ("non", "none")]
)
def test_mistyped_word_suggests_the_nearest(word: str, nearest: str) -> None:
    with pytest.raises(WeightsError) as caught:
        peek(word, NAME)
    assert f"--weights {word} is neither a file nor one of demo, pretrained, none." in str(caught.value)
    assert str(caught.value).endswith(f"Did you mean {nearest!r}?")


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_missing_file_is_told_and_not_taken_for_a_word(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{name} does not exist: give demo, pretrained, none, or"):
        peek(tmp_path / name, NAME)


def test_folder_and_unknown_format_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder, not a file"):
        peek(tmp_path, NAME)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"ends in '\.onnx'"):
        peek(tmp_path / "w.onnx", NAME)
    assert ".onnx" not in PICKLE_SUFFIXES


def test_model_without_bundled_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="no demo weights are bundled for resnet10t"):
        peek("demo", "resnet10t")


def test_bundled_weights_that_are_missing_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.models.zoo.DEMO_FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=rf"{ZOO[NAME].demo_file} are missing: reinstall"):
        peek("demo", NAME)


def test_bundled_weights_are_read_as_any_saved_file(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Tensor
) -> None:
    save_weights(made.model, made.config, tmp_path / f"{NAME}.safetensors", CLASSES)
    monkeypatch.setattr("pipeline.models.zoo.DEMO_FOLDER", tmp_path)
    loaded = load_model(NAME, "demo", img_size=SIDE)
    assert torch.equal(logits(loaded.model, images), logits(made.model, images))
    assert loaded.record.source == "demo"
    assert loaded.record.sha256 == sha256_of(ZOO[NAME].demo_file)


def test_unknown_model_is_told_before_the_source_is_looked_at() -> None:
    with pytest.raises(UsageError, match="Did you mean 't2t_vit_7'"):
        peek("gone.pth", "t2tvit_7")
