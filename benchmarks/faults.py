"""What injecting one fault into a session on a device gave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        injected: the fault came before the session was over; otherwise nothing is learned from it.
        error: the message that the session ended with; empty where it ended as if nothing had happened.
        error_s: seconds from the fault to that error.
        limit_s: of each request.
        left_over: whether a process of the session stayed on the device: it was waited for.
    """

    injected: bool
    error: str
    error_s: float
    limit_s: float
    left_over: bool = False

    @property
    def counted_as_success(self) -> bool:
        return self.injected and not self.error
