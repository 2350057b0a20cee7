"""Files with known answers: LiteRT on this host gives them, and a worker that does not is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import known_products
from targets.devices.arm64.emulation import ANSWERS, FOLDER, check, known_files
from targets.tflite import runner
from targets.types import TargetError
from targets.worker.host import HostWorker


def test_the_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    known_products.write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in FOLDER.iterdir())
    for known in known_files():
        assert known.path.read_bytes() == (tmp_path / known.path.name).read_bytes()
    with np.load(FOLDER / ANSWERS) as shipped, np.load(tmp_path / ANSWERS) as written:
        assert set(shipped) == set(written)
        for name in shipped:  # sums of float64 products may come in another order
            np.testing.assert_allclose(shipped[name], written[name], rtol=1e-5, atol=1e-6)
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 100_000


class Wrong:
    """A worker with LiteRT of this process, whose answers are changed before they are given."""

    def __init__(self, kind: str, share: float):
        self.kind, self.share = kind, share

    def open(self, target: str, path: Path, runtime: str, threads: int) -> Wrong:
        self.session = runner.load(path, runtime, threads)
        self.wrong = self.kind == path.stem
        return self

    def infer(self, batch: np.ndarray) -> np.ndarray:
        logits = self.session.infer(batch)
        if self.wrong:
            logits.reshape(-1)[: int(self.share * logits.size)] *= np.float32(0.5)
        return logits

    def close(self) -> None:
        self.session.close()


def test_this_hosts_worker_computes_them_rightly() -> None:
    with HostWorker(timeout_s=60) as worker:
        check(worker, "this host")


@pytest.mark.parametrize("kind", ["int8", "int8-weight", "float32"])
def test_an_eighth_of_the_answers_wrong_is_refused(kind: str) -> None:
    check(Wrong(kind, 0.0), "nobody")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=f"the emulated x computes wrong {kind.replace('-', ' ')} products") as error:
        check(Wrong(kind, 0.125), "the emulated x")  # type: ignore[arg-type]
    assert error.value.stage == "device"


def test_nothing_at_all_is_no_right_answer() -> None:
    for known in known_files():
        assert known.sqnr_db(known.expected) == float("inf")
        assert known.sqnr_db(np.zeros_like(known.expected)) == pytest.approx(0)
        assert not known.sqnr_db(np.full_like(known.expected, np.nan)) >= known.least_sqnr_db
        assert np.abs(known.expected).max() > 0
