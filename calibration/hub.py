"""Opens data sets that timm's dataset factory knows by name (`torch/cifar10`, `hfds/user/name`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.dataset import DataError, DataSource, Split
from calibration.preprocess import read_image, to_rgb
from calibration.remote import data_folder
from calibration.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image

PREFIXES = ("torch/", "hfds/")
STREAMS = ("tfds/",)  # calibration.webdataset and calibration.hf_stream read the others
VAL_SPLITS = ("validation", "val", "test")
INSTALL = "pip install -c constraints.txt -e '.[hub]'"


@dataclass(frozen=True)
class HubImages:
    """A map-style data set of timm or torchvision: item -> (image, label)."""

    dataset: Any

    def image(self, position: int) -> Image:
        """Read from the file itself where there is one.

        timm's item access gives the next image in place of a broken one, and both timm's and torchvision's drop
        transparency, EXIF orientation and everything above 8 bits.
        """
        reader, samples = getattr(self.dataset, "reader", None), getattr(self.dataset, "samples", None)
        try:
            if reader is not None:
                with reader[position][0] as file:
                    return read_image(file)
            if samples is not None:  # torchvision's DatasetFolder: (path, label)
                return read_image(Path(samples[position][0]))
            return to_rgb(self.dataset[position][0])
        except (OSError, ValueError, SyntaxError, AssertionError, TypeError) as error:  # the last two: no image there
            raise DataError(f"image {position} cannot be decoded: {error}") from None

    def content(self, position: int) -> bytes:
        image = self.image(position)
        return f"{image.size}".encode() + image.tobytes()


def load(spec: str) -> DataSource:
    """Download where needed, then the train split and the first of validation, val, test that exists.

    Raises:
        DataError: a streaming set, a missing package, an unknown name or split, no network.
    """
    if spec.lower().startswith(STREAMS):
        raise DataError(
            f"{spec} is a stream of TensorFlow Datasets, which is not read here: give its {' or '.join(PREFIXES)} "
            "form, WebDataset shards (wds/), or a folder"
        )
    train = _create(spec, "train")
    val_name, val = _first_val(spec)
    classes = _classes(train, spec)
    return DataSource(spec, classes, _split("train", train), _split(val_name, val))


def _first_val(spec: str) -> tuple[str, Any]:
    problems = []
    for name in VAL_SPLITS:
        try:
            return name, _create(spec, name)
        except DataError as error:
            problems.append(str(error))
    raise DataError(problems[0])


def _create(spec: str, split: str) -> Any:
    ensure_torchvision()
    from timm.data import create_dataset

    root = data_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        return create_dataset(spec, root=str(root), split=split, download=True)
    except (ImportError, AssertionError) as error:
        needed = f": {INSTALL} brings what Hugging Face sets need" if "hfds" in spec.lower() else ""
        raise DataError(f"data set {spec} cannot be opened ({error}){needed}") from None
    except Exception as error:  # hubs raise their own families of errors
        raise DataError(f"data set {spec}, split {split}, cannot be loaded into {root}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Of its message, at most 200 characters; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _classes(dataset: Any, spec: str) -> tuple[str, ...]:
    """Class names where the set carries them, else the label numbers."""
    names = getattr(dataset, "classes", None)
    reader = getattr(dataset, "reader", None)
    if names is None and reader is not None and getattr(reader, "class_to_idx", None):
        names = sorted(reader.class_to_idx, key=reader.class_to_idx.get)
    if names is None and reader is not None and hasattr(reader, "dataset"):
        names = getattr(reader.dataset.features[reader.label_key], "names", None)
    if names is None:
        labels = _labels(dataset)
        if not len(labels):
            raise DataError(f"{spec}: the split train has no images")
        names = range(int(labels.max()) + 1)
    return tuple(map(str, names))


def _labels(dataset: Any) -> np.ndarray:
    """int64 [N], from the set's own column where it has one: reading every image for it would take hours."""
    targets = getattr(dataset, "targets", None)
    reader = getattr(dataset, "reader", None)
    if targets is None and reader is not None and hasattr(reader, "dataset"):
        targets = reader.dataset[reader.label_key]
    if targets is None:
        targets = [int(dataset[i][1]) for i in range(len(dataset))]
    return np.asarray(targets, dtype=np.int64)


def _split(name: str, dataset: Any) -> Split:
    labels = _labels(dataset)
    ids = tuple(f"{name}-{i:07d}" for i in range(len(labels)))
    return Split(name, labels, ids, HubImages(dataset), np.arange(len(labels)))
