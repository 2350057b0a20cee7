"""What a launcher of several processes (`torchrun`, `accelerate launch`) says in the environment; without torch."""

from __future__ import annotations

import os


def launched() -> bool:
    """Whether this process was started beside others to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ


def chief() -> bool:
    """Whether this process writes and talks: the only one, or the first of those that train together."""
    return not launched() or os.environ.get("RANK", "0") == "0"
