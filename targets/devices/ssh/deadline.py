"""A connection and a limit in; at the limit the connection is cut, whatever is waited for over it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncssh


@dataclass
class Deadline:
    """`passed`: the connection was cut because the limit was reached."""

    passed: bool = False


@contextmanager
def deadline(connection: asyncssh.SSHClientConnection, limit_s: float) -> Iterator[Deadline]:
    """Cut `connection` after `limit_s` seconds in this block.

    Cancelling alone does not end in time: what is cancelled closes its file or channel politely, and waits for a
    device that does not answer.
    """
    state = Deadline()

    def cut() -> None:
        state.passed = True
        connection.abort()

    timer = asyncio.get_running_loop().call_later(limit_s, cut)
    try:
        yield state
    finally:
        timer.cancel()
