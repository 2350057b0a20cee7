"""The program that is counted under emulation: it makes a mark before and after every inference.

`python -m targets.devices.arm64.counted TARGET FILE RUNTIME IMAGE WARMUP N`, where IMAGE is a `.npy` file. There are
N + 2 marks: an empty pair, and one after each inference.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path

import numpy as np

from targets import registry
from targets.types import TargetError

#: In count_instructions.c too.
MARK = 0x65327432
#: Of this program, when a file does not load or run: its standard error ends with the stage and the cause.
REFUSED = 3


def mark() -> None:
    """A system call that no program makes, and that the kernel refuses."""
    with contextlib.suppress(OSError):
        os.sched_get_priority_max(MARK)


def main(target: str, path: str, runtime: str, image: str, warmup: str, n: str) -> None:
    images = np.load(image, allow_pickle=False)
    session = registry.get(target).load(Path(path), runtime, 1)
    for _ in range(int(warmup)):
        session.infer(images)
    gc.collect()
    gc.disable()  # it would run in one inference and not in the other
    mark()
    mark()
    for _ in range(int(n)):
        session.infer(images)
        mark()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TargetError as error:
        sys.stderr.write(f"\n{error.stage}\n{error.cause}\n")
        sys.stderr.flush()
        os._exit(REFUSED)
