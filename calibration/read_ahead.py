"""An iterator in, the same items out: the next few are made by a thread while the last one is being used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterator[T], room: int) -> Iterator[T]:
    """
    Args:
        room: how many items may wait.

    Raises:
        Exception: what `items` raises, after all items before it.
    """
    waiting: queue.Queue[object] = queue.Queue(room)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_END)
        except BaseException as error:  # handed over to who asks for the next item
            put(_Failure(error))

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error
