"""Check a worker with small TFLite files whose answers are known, before it opens a file of the user's.

An emulated processor may be wrong in single instructions: QEMU 7.2's "max" multiplies int8 matrices wrongly, and says
nothing. The files, and their answers by NumPy, are made by benchmarks/known_products.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets.types import TargetError

if TYPE_CHECKING:
    from targets.worker.client import WorkerClient

FOLDER = Path(__file__).with_name("known")
ANSWERS = "answers.npz"
# Kind of products -> SQNR in dB that a right answer has. A rounding of int8 to the other side costs one step of 1/120,
# which leaves 45 dB and more; wrong products leave none.
_LEAST_SQNR_DB = {"int8": 35.0, "int8 weight": 30.0, "float32": 100.0}


@dataclass(frozen=True)
class KnownFile:
    """
    Attributes:
        kind: of the products: "int8", "int8 weight", "float32".
        path: of the file.
        images: float32 [1, 4, 4, 16].
        expected: float32, what the file computes of them.
        least_sqnr_db: that a right answer has.
    """

    kind: str
    path: Path
    images: np.ndarray
    expected: np.ndarray
    least_sqnr_db: float

    def sqnr_db(self, answer: np.ndarray) -> float:
        """Of an answer against `expected`; inf where they are equal."""
        error = float(np.square(answer.astype(np.float64) - self.expected).sum())
        signal = float(np.square(self.expected.astype(np.float64)).sum())
        return float("inf") if error == 0 else 10 * float(np.log10(signal / error))


def file_name(kind: str) -> str:
    """Of a file in FOLDER; it is a TFLite file whatever its suffix, which keeps it apart from what users convert."""
    return f"{kind.replace(' ', '-')}.bin"


def known_files() -> tuple[KnownFile, ...]:
    """One of each kind of products that XNNPACK has kernels of their own for."""
    with np.load(FOLDER / ANSWERS, allow_pickle=False) as answers:
        return tuple(
            KnownFile(kind, FOLDER / file_name(kind), answers[f"{kind} images"], answers[f"{kind} expected"], least_db)
            for kind, least_db in _LEAST_SQNR_DB.items()
        )


def check(worker: WorkerClient, who: str) -> None:
    """Let `worker` compute all known files in LiteRT.

    Raises:
        TargetError: stage "device", `who` computes wrong products; or as of the worker.
    """
    for known in known_files():
        session = worker.open("tflite", known.path, "litert", 1)
        found = known.sqnr_db(session.infer(known.images))
        session.close()
        if not found >= known.least_sqnr_db:  # NaN too
            raise TargetError(
                "device",
                f"{who} computes wrong {known.kind} products: {found:.1f} dB against the known answer, at least "
                f"{known.least_sqnr_db:g} are needed; nothing is run on it",
            )
