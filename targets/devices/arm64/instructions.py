"""Count the instructions of one inference of a file on the emulated processor.

QEMU's plugin (count_instructions.c) writes how many were executed at each mark of targets.devices.arm64.counted; what
lies between two marks is one inference, with the copies of its input and its logits.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from targets.devices.arm64 import counted
from targets.devices.arm64.emulation import Emulation
from targets.devices.device import InstructionCount
from targets.types import Stage, TargetError, Unavailable
from targets.worker.host import tail

SOURCE = Path(__file__).with_name("count_instructions.c")
#: Processes, unless asked for another number; each of them counts INFERENCES after WARMUP.
REPEATS = 3
INFERENCES = 3
# The first allocates what the later ones use; the second is the first that finds Python's own caches filled.
WARMUP = 2
# One thread: instructions of threads that wait for each other depend on the host. The same hashes in every process.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def count(
    emulation: Emulation,
    target: str,
    path: Path,
    runtime: str,
    image: np.ndarray,
    timeout_s: float,
    repeats: int = REPEATS,
) -> InstructionCount:
    """Of one inference of `image`, float32 [1, 3, H, W].

    Args:
        timeout_s: for each of the processes.

    Raises:
        Unavailable: stage "device", no C compiler, or a QEMU without plugins.
        TargetError: stage "load" or "run".
    """
    version = emulation.version()
    with tempfile.TemporaryDirectory(prefix="count-") as name:
        folder = Path(name)
        plugin = compile_plugin(folder / "count.so")
        np.save(folder / "image.npy", image)
        arguments = (target, str(path.resolve()), runtime, str(folder / "image.npy"))
        counts = [
            statistics.median(_between_marks(emulation, plugin, folder / f"{n}.log", arguments, timeout_s))
            for n in range(repeats)
        ]
    return InstructionCount(
        per_inference=int(statistics.median(counts)),
        repeats=repeats,
        spread=int(max(counts) - min(counts)),
        counted_by=f"qemu {version} {emulation.cpu}",
    )


def compile_plugin(output: Path) -> Path:
    """
    Raises:
        Unavailable: stage "device", no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable(
            "device", "instructions are counted by a small C program, and there is no C compiler: install gcc"
        )
    # Without a C library: QEMU brings its own, which may be older than the compiler's.
    command = [compiler, "-O2", "-shared", "-fPIC", "-nostdlib", "-fno-stack-protector", "-o", str(output), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("device", f"{compiler} does not run: {error}") from error
    if done.returncode:
        raise Unavailable("device", f"{compiler} cannot compile {SOURCE.name}: {tail(done.stderr)}")
    return output


def read_marks(log: str) -> list[int]:
    """Instructions between marks, without those of a mark itself.

    Raises:
        TargetError: stage "run", a line is no mark, or more than one processor executed.
    """
    totals = []
    for line in log.splitlines():
        word, *numbers = line.split()
        if word != "mark" or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise TargetError("run", f"QEMU's log has {line[:80]!r} instead of a mark")
        if numbers[1] != "1":
            raise TargetError(
                "run", f"{numbers[1]} threads ran where one was expected: what they executed is not exact"
            )
        totals.append(int(numbers[0]))
    between = [after - before for before, after in itertools.pairwise(totals)]
    return [n - between[0] for n in between[1:]] if between else []


def _between_marks(
    emulation: Emulation, plugin: Path, log: Path, arguments: tuple[str, ...], timeout_s: float
) -> list[int]:
    options = ("-plugin", str(plugin), "-d", "plugin", "-D", str(log))
    command = emulation.command("-m", counted.__name__, *arguments, str(WARMUP), str(INFERENCES), qemu_options=options)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **emulation.environment(), **_ENVIRONMENT},
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise TargetError("run", f"counting took longer than {timeout_s:g} s: raise --device-timeout") from None
    if done.returncode == counted.REFUSED:
        stage, cause = done.stderr.splitlines()[-2:]
        raise TargetError(cast(Stage, stage), cause)
    if "plugin" in done.stderr and not log.exists():
        raise Unavailable(
            "device", f"this QEMU takes no plugins, by which instructions are counted: {tail(done.stderr)}"
        )
    if done.returncode:
        ended = (
            f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"status {done.returncode}"
        )
        raise TargetError("run", f"counting ended with {ended}; last lines of its stderr: {tail(done.stderr)}")
    between = read_marks(log.read_text())
    if len(between) != INFERENCES:
        raise TargetError("run", f"QEMU counted {len(between)} inferences of {INFERENCES}")
    return between
