"""Coroutines in, their results out, for callers that are not asynchronous: one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """An event loop that runs until this process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it, and cancel it where the wait is interrupted; limits are the coroutine's own."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop, and do not wait for it."""
        self._loop.call_soon_threadsafe(function)


@cache
def loop() -> Loop:
    """The one loop of this process, started at the first call."""
    return Loop()
