"""A few of the faults of benchmarks/device_faults.py in every run of the tests: none is ever taken for a success."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import known_worker
import pytest
from tcp_proxy import Proxy

from benchmarks.faults_ssh import KINDS, Bench, WrongReplyError


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as one:
        yield one


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_a_random_moment_is_an_error(kind: str, bench: Bench) -> None:
    tried = (bench.inject(kind, seed) for seed in range(1000, 1100))
    outcomes = list(itertools.islice((outcome for outcome in tried if outcome.injected), 2))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert not outcome.counted_as_success
        assert not outcome.left_over


def test_a_session_without_a_fault_ends_well_and_a_wrong_reply_would_be_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session() -> None:
        bench._session(Proxy(bench.server.port), random.Random(7), lambda pid, proxy: None)

    session()
    monkeypatch.setattr(known_worker, "wall_ms", lambda n: [0.0] * n)  # here alone: the worker has its own
    with pytest.raises(WrongReplyError, match="samples"):
        session()
