"""Keep an SDK quiet while a target calls it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quieted() -> Iterator[None]:
    """Keep an SDK's log lines and warnings to itself; its errors are exceptions.

    Lines of native code still reach standard error, which the worker keeps for the day that code aborts.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
