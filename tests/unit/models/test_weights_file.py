"""Files of weights as people have them: published, wrapped by training, damaged, hostile, not weights at all."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.files import sha256_of
from pipeline.models.checkpoint import CONTAINERS, read_checkpoint


def small(value: float = 1.0) -> dict[str, Tensor]:
    """Enough for what does not need a model."""
    return {"head.weight": torch.full((3, 2), value), "head.bias": torch.zeros(3)}


def value_of(path: Path) -> float:
    return read_checkpoint(path).tensors["head.weight"][0, 0].item()


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".pth.tar", ".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_each_container_and_suffix_is_read(container: str, suffix: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved({"epoch": 309, "arch": "t2t", container: small(2.0)}, tmp_path / f"w{suffix}"))
    assert checkpoint.container == container
    assert set(checkpoint.tensors) == {"head.weight", "head.bias"}
    assert checkpoint.tensors["head.weight"][0, 0] == 2.0
    assert checkpoint.sha256 == sha256_of(checkpoint.path)


def test_averaged_weights_win_whatever_the_order(tmp_path: Path) -> None:
    for order in (("state_dict", "state_dict_ema"), ("state_dict_ema", "state_dict")):
        content = {name: small(7.0 if name == "state_dict_ema" else 1.0) for name in order}
        path = saved(content, tmp_path / "both.pth.tar")
        assert read_checkpoint(path).container == "state_dict_ema"
        assert value_of(path) == 7.0


def test_an_empty_average_is_no_average(tmp_path: Path) -> None:
    path = saved({"state_dict": small(3.0), "state_dict_ema": {}}, tmp_path / "w.pth.tar")
    assert read_checkpoint(path).container == "state_dict"
    assert value_of(path) == 3.0


def test_bare_state_dict_is_read(tmp_path: Path) -> None:
    assert read_checkpoint(saved(small(), tmp_path / "w.pth")).container == "plain"


def test_the_old_file_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": small(5.0)}, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=False)
    assert value_of(tmp_path / "w.pth.tar") == 5.0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes_are_removed(prefix: str, tmp_path: Path) -> None:
    path = saved({"state_dict": {prefix + key: value for key, value in small().items()}}, tmp_path / "w.pth")
    assert set(read_checkpoint(path).tensors) == {"head.weight", "head.bias"}


def test_records_beside_the_tensors_are_allowed(tmp_path: Path) -> None:
    """Training scripts leave their arguments and numpy figures in the file, as T2T-ViT's own does."""
    content = {
        "state_dict": small(4.0),
        "args": argparse.Namespace(lr=5e-4, model="t2t_vit_7", sizes=[224, 224]),
        "metric": np.float64(71.7),
        "epoch": np.int64(309),
    }
    assert value_of(saved(content, tmp_path / "w.pth.tar")) == 4.0


def test_half_precision_becomes_float32_and_counters_stay_integers(tmp_path: Path) -> None:
    content = {"a": torch.full((2,), 0.5, dtype=torch.float16), "b": torch.ones(1, dtype=torch.bfloat16)}
    tensors = read_checkpoint(saved(content | {"n": torch.tensor(3)}, tmp_path / "w.pth")).tensors
    assert [tensors[key].dtype for key in "abn"] == [torch.float32, torch.float32, torch.int64]
    assert tensors["a"].tolist() == [0.5, 0.5]


class MakesFile:
    """Pickles as a call of `function` with the path of a file."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def hostile_objects(target: Path) -> dict[str, tuple[object, str]]:
    """By kind: an object whose unpickling creates `target`, and the name that the refusal must give."""
    return {
        "system": (MakesFile(os.system, f"touch {target}"), f"{os.system.__module__}.system"),
        "open": (MakesFile(open, str(target), "w"), f"{open.__module__}.open"),
        "eval": (MakesFile(eval, f"open({str(target)!r}, 'w')"), "eval"),
    }


@pytest.mark.parametrize("kind", ["system", "open", "eval"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("place", ["beside", "among"])
def test_hostile_file_is_refused_by_name_and_nothing_of_it_runs(
    kind: str, zipped: bool, place: str, tmp_path: Path
) -> None:
    target = tmp_path / "created_by_the_file"
    hostile, name = hostile_objects(target)[kind]
    content = (
        {"state_dict": small(), "args": hostile} if place == "beside" else {"state_dict": {"head.weight": hostile}}
    )
    path = tmp_path / "w.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(WeightsError, match="Nothing of it was run") as caught:
        read_checkpoint(path)
    assert f"asks for the class or function {name}," in str(caught.value)
    assert not target.exists()

    torch.load(path, weights_only=False)  # the file is as hostile as it looks: the unsafe loader does create it
    assert target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_bare_pickle_of_any_protocol_runs_nothing(protocol: int, tmp_path: Path) -> None:
    target = tmp_path / "created_by_the_file"
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(hostile_objects(target)["system"][0], protocol))
    with pytest.raises(WeightsError, match=r"w\.pth"):
        read_checkpoint(path)
    assert not target.exists()


def test_allow_list_is_not_left_open(tmp_path: Path) -> None:
    """What this program allows for its own reading stays unknown to the rest of the process."""
    path = saved({"state_dict": small(), "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    read_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def damaged_files(folder: Path) -> dict[str, Path]:
    save_file(small(), folder / "good.safetensors")
    torch.save(small(), folder / "good.pth")
    torch.save(small(), folder / "old.pth", _use_new_zipfile_serialization=False)
    made = {
        "empty.pth": b"",
        "empty.safetensors": b"",
        "cut.pth": (folder / "good.pth").read_bytes()[:-200],
        "cut_early.pth": (folder / "good.pth").read_bytes()[:60],
        "cut_old.pth": (folder / "old.pth").read_bytes()[:-10],
        "cut.safetensors": (folder / "good.safetensors").read_bytes()[:-4],
        "text.pth": b"<html>404 Not Found</html>",
        "text.safetensors": b"<html>404 Not Found</html>",
        "pickle_in.safetensors": (folder / "good.pth").read_bytes(),
        "safetensors_in.pth": (folder / "good.safetensors").read_bytes(),
        "zeros.tar": bytes(4096),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in made}


def test_damaged_and_foreign_files_are_told_by_path(tmp_path: Path) -> None:
    files = damaged_files(tmp_path)
    for good in ("good.pth", "good.safetensors", "old.pth"):
        assert value_of(tmp_path / good) == 1.0
    for name, path in files.items():
        with pytest.raises(WeightsError) as caught:
            read_checkpoint(path)
        message = str(caught.value)
        assert str(path) in message, name
        assert "not a file of weights" in message or "not a readable safetensors file" in message, message
        assert "\n" not in message, name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.ones(1)], "holds a list, not a dictionary"),
        (torch.ones(1), "holds a Tensor, not a dictionary"),
        ({"epoch": 3, "optimizer": {"lr": 1.0}}, "it has: epoch, optimizer"),
        ({}, "holds no tensors: it is not a file of weights"),
        ({"state_dict": {"head.weight": torch.ones(1), "lr": 0.1, 5: "x"}}, r"2 entries .* are not tensors \(lr, 5\)"),
    ],
)
def test_pickles_of_other_things_are_told(content: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=says):
        read_checkpoint(saved(content, tmp_path / "w.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_values_that_are_not_finite_are_refused_with_the_tensor_named(
    value: float, suffix: str, tmp_path: Path
) -> None:
    content, path = small(), tmp_path / f"w{suffix}"
    content["head.bias"][1] = value
    if suffix == ".pth":
        torch.save({"state_dict": content}, path)
    else:
        save_file(content, path)
    with pytest.raises(WeightsError, match=r"1 of 2 tensors hold NaN or infinity \(head\.bias\)"):
        read_checkpoint(path)
