"""Programs for the contract suite, made once for all targets."""

from __future__ import annotations

import pytest
from tiny_hybrid import SavedProgram, save_programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SavedProgram]:
    """By precision."""
    return save_programs(tmp_path_factory.mktemp("programs"))
