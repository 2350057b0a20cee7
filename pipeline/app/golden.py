"""A few images with what every file has to answer: an app that prepares and feeds them rightly gets these figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import CellsFailedError
from pipeline.run.logits import StageLogits
from targets.boundary import Boundary
from targets.types import Session

IMAGES = 5
#: Of a probability. Runtimes round requantized int8 differently; a wrongly fed file is off by far more.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Golden:
    """
    Attributes:
        rows: of the stored logits, one for each image.
        pixels: uint8 RGB [N, H, W, 3], prepared.
        logits: float32 [N, classes], of the program that the files are made from.
        classes: names in the order of the logits.
        labels: [N], positions of the true classes.
    """

    rows: tuple[int, ...]
    pixels: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...]
    labels: tuple[int, ...]

    def check(self, answers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """
        Args:
            answers: by file and runtime, probabilities [N, classes].

        Raises:
            CellsFailedError: one has another top-1 than the program.
        """
        wrong = []
        for file, runtimes in answers.items():
            for runtime, probabilities in runtimes.items():
                for number, (seen, logits) in enumerate(zip(probabilities, self.logits, strict=True), 1):
                    if seen.argmax() != logits.argmax():
                        said, wanted = self.classes[int(seen.argmax())], self.classes[int(logits.argmax())]
                        wrong.append(f"{file} in {runtime} says {said} to {image_name(number)}, the program {wanted}")
        if wrong:
            raise CellsFailedError(
                f"{len(wrong)} golden answers differ from the program's: validate the run first\n  "
                + "\n  ".join(wrong)
            )

    def as_json(self, answers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, object]:
        """What golden.json holds; of each file the answers of its first runtime here."""
        first = {file: next(iter(runtimes.items())) for file, runtimes in answers.items() if runtimes}
        return {
            "tolerance": _tolerance(answers),
            "runtimes": {file: runtime for file, (runtime, _) in first.items()},
            "images": [
                {
                    "image": image_name(number),
                    "prepared": prepared_name(number),
                    "label": self.classes[self.labels[number - 1]],
                    "logits": _numbers(logits),
                    "files": {
                        file: {
                            "top1": self.classes[int(probabilities[number - 1].argmax())],
                            "probabilities": _numbers(probabilities[number - 1]),
                        }
                        for file, (_, probabilities) in first.items()
                    },
                }
                for number, logits in enumerate(self.logits, 1)
            ],
        }


def image_name(number: int) -> str:
    """The photo, upright."""
    return f"{number}.png"


def prepared_name(number: int) -> str:
    """The pixels that the files take of it."""
    return f"{number}-input.png"


def pick(stored: StageLogits, stage: str, count: int = IMAGES) -> tuple[int, ...]:
    """Rows of the images that a stage is surest of, rightly; of different classes as far as there are any.

    A close call would differ between two correct runtimes, and so say nothing of how a file is fed.
    """
    probabilities = softmax(stored.stages[stage])
    top = np.sort(probabilities, axis=1)
    margin = top[:, -1] - top[:, -2] if probabilities.shape[1] > 1 else top[:, -1]
    right = probabilities.argmax(1) == stored.labels
    order = sorted(range(len(right)), key=lambda row: (not right[row], -margin[row]))
    firsts: dict[int, int] = {}
    for row in order:
        firsts.setdefault(int(stored.labels[row]), row)
    others = [row for row in order if row not in firsts.values()]
    return tuple([*firsts.values(), *others][:count])


def replay(session: Session, boundary: Boundary, pixels: np.ndarray) -> np.ndarray:
    """Probabilities [N, classes] that a file gives for prepared pixels.

    Raises:
        TargetError: it does not run.
    """
    return softmax(boundary.scores(session.infer(boundary.feed(pixels))))


def softmax(logits: np.ndarray) -> np.ndarray:
    """[N, classes] -> probabilities; float64."""
    from scipy import special

    return np.asarray(special.softmax(logits.astype(np.float64), axis=1))


def _tolerance(answers: Mapping[str, Mapping[str, np.ndarray]]) -> float:
    """Twice what the runtimes of one file differ by here, where that is more than TOLERANCE."""
    spreads = [
        float(np.ptp(np.stack(list(runtimes.values())), axis=0).max()) for runtimes in answers.values() if runtimes
    ]
    return max(TOLERANCE, 2 * max(spreads, default=0.0))


def _numbers(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
