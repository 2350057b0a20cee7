"""One quantized run of t2t_vit_7 that the end-to-end tests share: small images and few steps, everything else real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Ended, main_py

from pipeline.rundir import Run, find_run

SIDE = 96
SCORED = 60


@dataclass(frozen=True)
class Finished:
    """A runs folder with one finished run."""

    root: Path
    run: Run
    ended: Ended

    def command(self, *arguments: object) -> Ended:
        return main_py(*arguments, "--runs-dir", self.root)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("e2e") / "runs"
    ended = main_py(
        "quantize", "t2t_vit_7", "--weights", "demo", "--img-size", SIDE, "--max-steps", 6, "--limit-val", SCORED,
        "--calibration-images", 32, "--runs-dir", root,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return Finished(root, find_run(root, None), ended)
