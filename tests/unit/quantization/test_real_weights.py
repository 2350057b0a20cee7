"""The test bed of `benchmarks/real_weights.py`: what is scored apart was not trained on, no tensor is mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks import real_weights
from calibration.sources import open_data
from calibration.torchvision_compat import ensure_torchvision

MODEL = "test_resnet"  # timm's smallest


def test_the_second_of_two_photos_is_never_trained_on(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(photos / f"n{number}_thing.png")
    (photos / "README.md").write_text("no photo")
    for _ in range(2):  # again over what is there
        data = open_data(str(real_weights.image_folder(photos, tmp_path / "folder")))
    assert len(data.classes) == len(data.val) == len(data.train) == 6
    assert [Path(name).name for name in data.val.ids] == [f"n{i}_thing.png" for i in range(6)]
    assert {Path(name).name for name in data.train.ids} == {"n0_thing.png", "n2_thing.png", "n4_thing.png"}
    assert data.val.labels.tolist() == data.train.labels.tolist() == list(range(6))


def test_tensors_are_taken_in_order_and_only_where_every_shape_fits(tmp_path: Path) -> None:
    ensure_torchvision()
    import timm

    state = timm.create_model(MODEL).state_dict()
    named = {f"_other.{number}": x for number, x in enumerate(state.values())}
    torch.save(named, tmp_path / "weights.pth")
    mapped = load_file(real_weights.mapped_weights(MODEL, tmp_path / "weights.pth", tmp_path / "work"))
    assert all(torch.equal(mapped[name], x) for name, x in state.items())
    torch.save(dict(list(named.items())[1:]), tmp_path / "short.pth")
    with pytest.raises(SystemExit, match="not in order those of test_resnet"):
        real_weights.mapped_weights(MODEL, tmp_path / "short.pth", tmp_path / "work")
