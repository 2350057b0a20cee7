"""Counts of long work in; a bar with rate and time left on stderr out, one plain line where there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]  # takes a line for the reader


def launched() -> bool:
    """Whether this process was started beside others to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ


def chief() -> bool:
    """Whether this process writes and talks: the only one, or the first of those that train together."""
    return not launched() or os.environ.get("RANK", "0") == "0"


class Tracker:
    """Handed to the work: `advance` counts, `note` shows a short figure beside the bar."""

    def __init__(self) -> None:
        self.done = 0
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the work began; never 0."""
        return max(1e-6, time.monotonic() - self._start)

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        """Nothing to show without a terminal."""


@contextmanager
def progress(what: str, total: int, unit: str = "images") -> Iterator[Tracker]:
    """A bar with `unit` a second and time left while the body runs."""
    if chief() and sys.stderr.isatty():
        with _bar(what, total, unit) as tracker:
            yield tracker
        return
    tracker = Tracker()
    yield tracker
    rate = tracker.done / tracker.seconds
    if chief():
        print(f"{what}: {tracker.done} {unit} in {tracker.seconds:.1f} s ({rate:.1f} {unit}/s)", file=sys.stderr)


@contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Tracker]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    class BarTracker(Tracker):
        def __init__(self, bar: Progress, task: TaskID):
            super().__init__()
            self._bar, self._task = bar, task

        def advance(self, count: int = 1) -> None:
            super().advance(count)
            self._bar.update(self._task, advance=count, rate=f"{self.done / self.seconds:.1f} {unit}/s")

        def note(self, text: str) -> None:
            self._bar.update(self._task, note=text)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield BarTracker(bar, bar.add_task(what, total=total, rate="", note=""))
