"""Opens Hugging Face data sets (`hfids/USER/NAME`, `hfids/FOLDER`) whose training split is streamed, not downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from calibration import remote
from calibration.dataset import DataError, DataSource, Encoded
from calibration.hub import INSTALL, VAL_SPLITS, first_line
from calibration.stream import ShuffledShards, kept_split, streamed

PREFIX = "hfids/"
LABELS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class HfShards:
    """The files of one split; their images are not decoded.

    Their order is left to calibration.stream: that of the package's own shuffling differs between its versions.
    """

    builder: Any
    split: str
    image_key: str
    label_key: str

    @cached_property
    def dataset(self) -> Any:
        return self.builder.as_streaming_dataset(split=self.split).decode(False)

    @property
    def count(self) -> int:
        return int(self.dataset.num_shards)

    def identity(self) -> str:
        builder = self.builder  # its hash holds the commit on the hub, or the times of local files
        place = builder.repo_id or builder.base_path
        return f"{place} {builder.config_id} {builder.hash} {self.split} {self.image_key} {self.label_key}"

    def samples(self, shard: int) -> Iterator[Encoded]:
        try:
            for position, row in enumerate(self.dataset.shard(num_shards=self.count, index=shard)):
                yield self._encoded(row, f"{self.split}-{shard}-{position}")
        except DataError:
            raise
        except Exception as error:  # the package and what it reads through raise their own families of errors
            raise DataError(f"the stream of {self.split} broke off: {first_line(error)}") from error

    def _encoded(self, row: Any, place: str) -> Encoded:
        image, label = row[self.image_key], row[self.label_key]
        path = str(image.get("path") or "")
        name = f"{place}/{path}" if path else place
        if label is None:
            raise DataError(f"{name} has no label")
        content = image.get("bytes")
        if content is None:
            content = remote.read(path if "://" in path else Path(path).absolute().as_uri())
        return Encoded(content or b"", int(label), name)


def load(spec: str) -> DataSource:
    """A stream of the split train; validation, val or test is read once and kept.

    Args:
        spec: `hfids/NAME`, or `hfids/NAME|N` where the set does not say that it has N training images.

    Raises:
        DataError: a missing package, an unknown name or split, no network, no image or label column, no length.
    """
    name, _, given = spec[len(PREFIX) :].partition("|")
    builder = _builder(spec, name)
    features = builder.info.features
    val_name, features = _first_val(spec, builder, features)
    image_key, label_key = _columns(spec, features)
    images = _length(spec, builder, given)
    val = ShuffledShards(HfShards(builder, val_name, image_key, label_key))
    kept = kept_split(val_name, spec, val.identity(), val.in_order)
    names = getattr(features[label_key], "names", None)
    classes = tuple(names or map(str, range(int(np.max(kept.labels, initial=-1)) + 1)))
    train = ShuffledShards(HfShards(builder, "train", image_key, label_key))
    return DataSource(spec, classes, streamed("train", spec, train, images, len(classes)), kept)


def _builder(spec: str, name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"data set {spec} cannot be opened ({error}): {INSTALL} brings what it needs") from None
    try:
        return datasets.load_dataset_builder(name, cache_dir=str(remote.data_folder()))
    except Exception as error:  # hubs raise their own families of errors
        raise DataError(f"data set {spec} cannot be opened: {first_line(error)}") from error


def _first_val(spec: str, builder: Any, features: Any) -> tuple[str, Any]:
    """The name of the first validation split that there is, and the features of its images."""
    for name in VAL_SPLITS:
        try:
            dataset = builder.as_streaming_dataset(split=name)
        except ValueError:  # no such split
            continue
        return name, features or dataset.features or dataset._resolve_features().features
    raise DataError(f"data set {spec} has no split {', '.join(VAL_SPLITS[:-1])} or {VAL_SPLITS[-1]}")


def _columns(spec: str, features: Any) -> tuple[str, str]:
    """The names of the image and the label column."""
    from datasets import ClassLabel, Image

    images = [key for key, feature in features.items() if isinstance(feature, Image)]
    classes = [key for key, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = [key for key in LABELS if key in features] or classes
    if not images or not labels:
        raise DataError(
            f"data set {spec} has no column of {'images' if not images else 'labels'}: it has {', '.join(features)}"
        )
    return images[0], labels[0]


def _length(spec: str, builder: Any, given: str) -> int:
    """Training images of an epoch."""
    if given:
        if not given.isdecimal() or not int(given):
            raise DataError(f"--data {spec}: after | stands the number of training images of an epoch, not {given!r}")
        return int(given)
    declared = (builder.info.splits or {}).get("train")
    if declared is None or not declared.num_examples:
        raise DataError(
            f"data set {spec} does not say how many training images it has: add their number, --data '{spec}|50000' "
            "for example"
        )
    return int(declared.num_examples)
