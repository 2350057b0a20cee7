"""The device `qemu-arm64`: an emulated Arm processor, which gives numbers of Arm kernels and never a time.

It also counts the instructions of an inference: QEMU's plugin (count_instructions.c) writes how many were executed at
each mark of targets.devices.arm64.counted; what lies between two marks is one inference, with the copies of its input
and its logits.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from targets.devices.address import Address
from targets.devices.arm64 import counted, setup
from targets.devices.arm64 import emulation as processor
from targets.devices.arm64.emulation import EXECUTORCH, LITERT, Arm64Worker, Emulation, capability, wheel_versions
from targets.devices.device import Device, DeviceOptions, Found, InstructionCount, Say
from targets.types import Stage, TargetError, Unavailable
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.host import run, tail

_RUNTIMES = {"tflite": (LITERT,), "executorch": (EXECUTORCH,)}


class Arm64Device:
    """What targets.devices.arm64.setup prepared.

    Raises:
        Unavailable: stage "device", nothing is prepared; the message says how.
        TargetError: stage "device", an option that makes no sense here.
    """

    times = False

    def __init__(self, address: Address, options: DeviceOptions):
        if reason := setup.ready():
            raise Unavailable("device", f"qemu-arm64: {reason}")
        if options.cpus:
            raise TargetError("device", "qemu-arm64 measures no time, so that cores are not chosen: leave --cpus out")
        self.address = address
        self._emulation = Emulation(setup.folder())
        self._timeout_s = options.timeout_s

    def facts(self) -> DeviceFacts:
        with self.worker() as worker:
            hello = worker.hello()
        return DeviceFacts(
            model="QEMU user mode emulation",
            chip=f"{processor.CHIP}, emulated",
            system=f"Linux aarch64 under qemu {self._emulation.version()} ({self._emulation.cpu})",
            cores=int(hello["cpus"]),
            runtimes={
                f"{target} {runtime}": capability(self._emulation, runtime)
                for target, runtimes in _RUNTIMES.items()
                for runtime in runtimes
            },
            versions={"python": hello["versions"]["python"], **wheel_versions(self._emulation.folder)},
            vector_extensions=processor.VECTOR_EXTENSIONS,
            emulated=True,
        )

    def conditions(self) -> Conditions:
        """Nothing of this host's state matters where no time is measured."""
        return Conditions()

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return tuple(runtime for runtime in _RUNTIMES.get(target, ()) if capability(self._emulation, runtime).available)

    def worker(self) -> Arm64Worker:
        return Arm64Worker(self._emulation, self._timeout_s)

    def count_instructions(self, target: str, path: Path, runtime: str, image: np.ndarray) -> InstructionCount:
        """As targets.devices.device.CountsInstructions."""
        if runtime not in self.runtimes(target, ""):
            raise Unavailable("load", f"qemu-arm64 has no {runtime} for {target} files")
        return count(self._emulation, target, path, runtime, image, self._timeout_s)

    def close(self) -> None:
        """Nothing is kept open between workers."""


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    return Arm64Device(address, options)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    return (Found(Address("qemu-arm64"), setup.ready()),)


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
    """Of one inference of `image` [1, ...], as the file takes it.

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
        done = run(command, 120)
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
        done = run(command, timeout_s, {**emulation.environment(), **_ENVIRONMENT})
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
