"""Feed images to Core ML's `predict`, or to anything else that answers to it, as a session.

`predict` is that of `coremltools.models.MLModel` on a Mac. Whatever else answers to it, as the reference interpreter of
MIL programs does, gets the same images and is held to the same contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.coreml.package import OUTPUT, Preprocessing, read
from targets.sdk import one_line
from targets.types import Samples, Session, TargetError, check_batch

if TYPE_CHECKING:
    from PIL import Image


#: `predict` of a Core ML model: one value for each input by name -> one for each output by name.
Predict = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class PackageInput:
    """The one input of a package.

    Attributes:
        name: of the input.
        shape: (1, 3, H, W).
        folded: for an input that is an RGB picture: the preprocessing inside the package. None for an array of
            normalised floats.
    """

    name: str
    shape: tuple[int, ...]
    folded: Preprocessing | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 4 or self.shape[0] != 1 or min(self.shape) < 1:
            raise ValueError(f"input {self.name!r} has shape {list(self.shape)}, not that of one image [1, 3, H, W]")
        if self.folded is not None and len(self.folded.mean) != self.shape[1]:
            mean, std = self.folded.mean, self.folded.std
            raise ValueError(f"mean {mean} and std {std}: one of each for {self.shape[1]} channels")


def read_input(spec: Any) -> PackageInput:
    """The input of a package from its Model protobuf.

    Raises:
        ValueError: not one image, or a picture whose preprocessing the package does not tell.
    """
    if len(spec.description.input) != 1:
        names = [feature.name for feature in spec.description.input]
        raise ValueError(f"it has the inputs {names}, of which one, the image, is expected")
    (feature,) = spec.description.input
    kind = feature.type.WhichOneof("Type")
    if kind == "multiArrayType":
        return PackageInput(feature.name, tuple(int(n) for n in feature.type.multiArrayType.shape))
    if kind != "imageType":
        raise ValueError(f"its input {feature.name!r} is a {kind}, neither an array nor an image")
    folded = read(dict(spec.description.metadata.userDefined))
    if folded is None:
        raise ValueError(
            f"its input {feature.name!r} is an image, and the package does not tell which mean and std are folded "
            "into it: convert it with this program"
        )
    image = feature.type.imageType
    return PackageInput(feature.name, (1, 3, int(image.height), int(image.width)), folded)


class CoreMLSession(Session):
    """A package that is ready to predict.

    Args:
        takes: its input.
        name: of the package, for error messages.
        load_ms: milliseconds that compiling and loading took; None where nothing was compiled.
    """

    def __init__(self, predict: Predict, takes: PackageInput, name: str, load_ms: float | None = None):
        self._run: Predict | None = predict
        self._takes = takes
        self._name = name
        self.load_ms = load_ms

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate([self._predict(value) for value in self._values(batch)])

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """Includes the copy of the image into and of the logits out of Core ML: `predict` does not part them."""
        values = self._values(batch)
        samples_ms = []
        for i in range(n):
            start_ns = time.perf_counter_ns()
            self._predict(values[i % len(values)])
            samples_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        return Samples(samples_ms, None)

    def close(self) -> None:
        self._run = None

    def _values(self, batch: np.ndarray) -> list[np.ndarray] | list[Image.Image]:
        """float32 [N, 3, H, W], or uint8 [N, H, W, 3] for a picture -> N values for `predict`."""
        _, channels, height, width = self._takes.shape
        is_open = self._run is not None
        if self._takes.folded is None:
            check_batch(batch, (channels, height, width), self._name, is_open)
            return list(np.ascontiguousarray(batch)[:, None])
        from PIL import Image

        check_batch(batch, (height, width, channels), self._name, is_open, dtype="uint8")
        return [Image.fromarray(np.ascontiguousarray(image)) for image in batch]

    def _predict(self, value: np.ndarray | Image.Image) -> np.ndarray:
        """One image -> float32 logits [1, classes]."""
        assert self._run is not None
        try:
            outputs = self._run({self._takes.name: value})
        except TargetError:  # of the reference, which names the operator
            raise
        except Exception as error:  # the framework's errors come as RuntimeError, Exception and its own
            raise TargetError("run", f"{self._name}: {one_line(error)}") from error
        if OUTPUT not in outputs:
            raise TargetError(
                "run", f"{self._name} gives {', '.join(outputs)}, no {OUTPUT!r}: convert it with this program"
            )
        return np.asarray(outputs[OUTPUT], dtype=np.float32).reshape(1, -1)
