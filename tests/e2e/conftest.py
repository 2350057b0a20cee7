"""One quantized run of t2t_vit_7 that the end-to-end tests share."""

from __future__ import annotations

import pytest
from command_line import main_py
from finished_run import SCORED, SIDE, Finished

from pipeline.run.folder import find_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("e2e") / "runs"
    ended = main_py(
        "quantize", "t2t_vit_7", "--weights", "demo", "--img-size", SIDE, "--max-steps", 6, "--limit-val", SCORED,
        "--calibration-images", 32, "--keep", "trained", "--runs-dir", root,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return Finished(root, find_run(root, None), ended)
