"""The real worker with one more target, `known`, whose files need no runtime and whose answers anyone can work out."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from targets.types import Samples, Session

COMMAND = [sys.executable, "-P", str(Path(__file__).resolve())]


def logits(content: bytes, batch: np.ndarray) -> np.ndarray:
    """[N, ...] -> [N, 4]: sums of each image, weighed with the first bytes of the file."""
    sums = batch.reshape(len(batch), -1).sum(axis=1, dtype=np.float64)
    return (sums[:, None] * np.frombuffer(content[:4], np.uint8)).astype(np.float32)


def wall_ms(n: int) -> list[float]:
    return [1.0 + index / n for index in range(n)]


class KnownTarget:
    """Stands for a target; only what a worker calls to open a file."""

    def cannot_run(self, runtime: str) -> str:
        return ""

    def load(self, path: Path, runtime: str, threads: int) -> KnownSession:
        return KnownSession(path.read_bytes())


class KnownSession(Session):
    load_ms = 0.5

    def __init__(self, content: bytes):
        self._content = content

    def infer(self, batch: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * len(batch))
        return logits(self._content, batch)

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        time.sleep(0.001 * n)
        return Samples(wall_ms(n), None)

    def close(self) -> None: ...


TARGET = KnownTarget()


if __name__ == "__main__":
    from targets import registry
    from targets.worker import worker

    sys.modules["known_worker.target"] = sys.modules["__main__"]
    registry._FOLDERS["known"] = "known_worker"
    worker.main()
