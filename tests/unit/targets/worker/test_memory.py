"""The peak of this process above a mark: what is held and given back is in it, what was there before is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from targets.worker.readings import memory

BYTES = 64 << 20
#: The kernel counts pages for each thread, and adds them up now and then.
SLACK = 4 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts a peak anew")
def test_the_peak_is_counted_from_the_mark_on() -> None:
    np.ones(2 * BYTES, np.uint8)  # a higher peak before
    idle = memory.mark()
    assert idle is not None
    assert (memory.above(idle) or 0) < SLACK
    held = np.ones(BYTES, np.uint8)
    del held  # the peak stays
    peak = memory.above(idle)
    assert peak is not None
    assert BYTES - SLACK < peak < BYTES + SLACK
    assert (memory.above(memory.mark()) or 0) < SLACK


def test_without_a_mark_nothing_is_measured() -> None:
    assert memory.above(None) is None
