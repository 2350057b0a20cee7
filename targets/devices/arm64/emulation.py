"""Run a worker under emulation, on a processor that /proc describes, after known files gave their known answers.

The folder has `root` (Debian for arm64), `site` (the runtimes' arm64 wheels) and `qemu` (Debian's QEMU for this
machine with all of its libraries, so that it runs on other distributions too; without it, the one on PATH is taken).

An emulated processor may be wrong in single instructions: QEMU 7.2's "max" multiplies int8 matrices wrongly, and says
nothing. The files, and their answers by NumPy, are made by benchmarks/known_products.py.

QEMU answers the processor's own registers for the emulated one, but passes most reads of /proc and /sys on: a runtime
that looks there finds the host's x86, and crashes, or sizes its work by the host's caches. QEMU reads a file under
its prefix instead where there is one, so the answers, and with them the instructions that are executed, are the same
on every host.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets.types import Capability, TargetError, Unavailable
from targets.worker.client import TIMEOUT_S, RemoteSession
from targets.worker.host import SOURCE_ROOT, HostWorker, run

if TYPE_CHECKING:
    from targets.worker.client import WorkerClient


PYTHON = "root/usr/bin/python3.11"
SITE = "site"
QEMU = "qemu/usr/bin/qemu-aarch64"
LITERT = "litert"
EXECUTORCH = "executorch"
# Which packages of the folder a runtime needs, and why one may be missing.
_NEEDS = {LITERT: ("ai_edge_litert",), EXECUTORCH: ("executorch", "torch")}
_MISSING = {
    EXECUTORCH: "its Python runtime needs torch, whose arm64 wheel on PyPI is a CUDA build that does not load without "
    "several GB of NVIDIA's libraries"
}
_LOADERS = ("lib64/ld-linux-*.so.*", "lib/ld-linux-*.so.*", "usr/lib*/ld-linux-*.so.*")
# Of this machine's shell, and not for the emulated Python: libraries and modules of another processor or user.
_UNSET = ("LD_LIBRARY_PATH", "LD_PRELOAD")

#: As QEMU calls it. Products of the processor that it takes by default ("max") were wrong under QEMU 7.2.
CPU = "cortex-a76"
CHIP = "Cortex-A76"
CORES = 4
#: Of targets.worker.readings.linux's names, what the processor has.
VECTOR_EXTENSIONS = ("asimd", "asimddp")


@dataclass(frozen=True)
class Emulation:
    """
    Attributes:
        folder: as targets.devices.arm64.setup makes it.
        cpu: as QEMU calls it. The folder describes CPU; others are there to show what they get wrong.
    """

    folder: Path
    cpu: str = CPU

    def command(self, *arguments: str, qemu_options: tuple[str, ...] = ()) -> list[str]:
        """Python under emulation with `arguments`; -P, because the current folder must not shadow its modules."""
        unset = [part for name in _UNSET for part in ("-U", name)]
        prefix = str(self.folder / "root")
        return [*self._qemu(), "-L", prefix, *unset, *qemu_options, str(self.folder / PYTHON), "-P", *arguments]

    def environment(self) -> dict[str, str]:
        """To be added to this process's own for `command`."""
        return {
            "QEMU_CPU": self.cpu,
            "PYTHONPATH": os.pathsep.join((str(SOURCE_ROOT), str(self.folder / SITE))),
            "PYTHONHOME": "",  # the same as none
            "PYTHONNOUSERSITE": "1",
        }

    def version(self) -> str:
        """QEMU's version, "7.2.22".

        Raises:
            Unavailable: it does not run here.
        """
        try:
            done = run([*self._qemu(), "--version"], 60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable("device", f"qemu-aarch64 does not start: {error}") from error
        found = re.search(r"version (\d+(?:\.\d+)+)", done.stdout)
        if found is None:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise Unavailable("device", f"qemu-aarch64 does not run here (status {done.returncode}): {said}")
        return found[1]

    def missing(self) -> str:
        """What the folder lacks; empty where nothing."""
        if sys.platform != "linux":
            return f"QEMU's user mode emulation runs on Linux, not on {platform.system()}"
        for name in (PYTHON, f"{SITE}/numpy"):
            if not (self.folder / name).exists():
                return f"{self.folder} has no {name}"
        if not (self.folder / QEMU).exists() and shutil.which("qemu-aarch64") is None:
            return f"{self.folder} has no {QEMU}, and PATH has no qemu-aarch64"
        return ""

    def has(self, package: str) -> bool:
        """Whether the emulated Python can import `package`."""
        return (self.folder / SITE / package).is_dir()

    def _qemu(self) -> list[str]:
        """Through its own loader, with its own libraries: this machine's may be of another distribution."""
        own = self.folder / QEMU
        if not own.exists():
            return [shutil.which("qemu-aarch64") or "qemu-aarch64"]
        top = self.folder / "qemu"
        loader = next((path for pattern in _LOADERS for path in sorted(top.glob(pattern))), None)
        if loader is None:
            return [str(own)]
        folders = (*sorted(top.glob("lib/*-linux-gnu")), *sorted(top.glob("usr/lib/*-linux-gnu")))
        return [str(loader), "--library-path", os.pathsep.join(map(str, folders)), str(own)]


def wheel_versions(folder: Path) -> Mapping[str, str]:
    """Package -> version of what decides a result, from the names of the folder's metadata."""
    found = {}
    for info in sorted((folder / SITE).glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[name.replace("_", "-")] = version
    return {name: found[name] for name in ("numpy", "ai-edge-litert", "executorch", "torch") if name in found}


def capability(emulation: Emulation, runtime: str) -> Capability:
    """Whether the emulated Python has it."""
    missing = [package for package in _NEEDS.get(runtime, (runtime,)) if not emulation.has(package)]
    if not missing:
        return Capability(True)
    return Capability(False, _MISSING.get(runtime, f"{missing[0]} is not among the arm64 packages of qemu-arm64"))


class Arm64Worker(HostWorker):
    """It reads files where they lie: nothing is pushed."""

    def __init__(self, emulation: Emulation, timeout_s: float = TIMEOUT_S):
        super().__init__(timeout_s, emulation.command("-m", "targets.worker"), emulation.environment())
        self._emulation = emulation

    def _prepare(self) -> None:
        try:
            check(self, f"the emulated {self._emulation.cpu}")
        except TargetError as error:
            if error.stage == "device":
                raise
            raise TargetError("device", f"a known file does not run under emulation: {error}") from error

    def open(self, target: str, path: Path, runtime: str, threads: int) -> RemoteSession:
        can = capability(self._emulation, runtime)
        if not can.available:
            raise Unavailable("load", f"qemu-arm64 has no {runtime}: {can.reason}")
        return super().open(target, path, runtime, threads)


FOLDER = Path(__file__).with_name("known")
ANSWERS = "answers.npz"
# Kind of products -> SQNR in dB that a right answer has. A rounding of int8 to the other side costs one step of 1/120,
# which leaves 45 dB and more; wrong products leave none.
_LEAST_SQNR_DB = {"int8": 35.0, "int8 weight": 30.0, "float32": 100.0}


@dataclass(frozen=True)
class KnownFile:
    """
    Attributes:
        kind: of the products: "int8", "int8 weight", "float32".
        path: of the file.
        images: float32 [1, 4, 4, 16].
        expected: float32, what the file computes of them.
        least_sqnr_db: that a right answer has.
    """

    kind: str
    path: Path
    images: np.ndarray
    expected: np.ndarray
    least_sqnr_db: float

    def sqnr_db(self, answer: np.ndarray) -> float:
        """Of an answer against `expected`; inf where they are equal."""
        error = float(np.square(answer.astype(np.float64) - self.expected).sum())
        signal = float(np.square(self.expected.astype(np.float64)).sum())
        return float("inf") if error == 0 else 10 * float(np.log10(signal / error))


def file_name(kind: str) -> str:
    """Of a file in FOLDER; it is a TFLite file whatever its suffix, which keeps it apart from what users convert."""
    return f"{kind.replace(' ', '-')}.bin"


def known_files() -> tuple[KnownFile, ...]:
    """One of each kind of products that XNNPACK has kernels of their own for."""
    with np.load(FOLDER / ANSWERS, allow_pickle=False) as answers:
        return tuple(
            KnownFile(kind, FOLDER / file_name(kind), answers[f"{kind} images"], answers[f"{kind} expected"], least_db)
            for kind, least_db in _LEAST_SQNR_DB.items()
        )


def check(worker: WorkerClient, who: str) -> None:
    """Let `worker` compute all known files in LiteRT.

    Raises:
        TargetError: stage "device", `who` computes wrong products; or as of the worker.
    """
    for known in known_files():
        session = worker.open("tflite", known.path, "litert", 1)
        found = known.sqnr_db(session.infer(known.images))
        session.close()
        if not found >= known.least_sqnr_db:  # NaN too
            raise TargetError(
                "device",
                f"{who} computes wrong {known.kind} products: {found:.1f} dB against the known answer, at least "
                f"{known.least_sqnr_db:g} are needed; nothing is run on it",
            )


# HWCAP of QEMU 7.2's cortex-a76, 0x119ffb, in the names of arch/arm64/kernel/cpuinfo.c.
_FEATURES = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
# MIDR_EL1 of QEMU's cortex-a76, 0x414fd0b1: r4p1.
_CPUINFO = """processor\t: {core}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
# Cortex-A76 Core Technical Reference Manual: L1 of 64 KB each, a private L2 of 128 to 512 KB; L3 is the cluster's.
_CACHES = (
    ("index0", 1, "Data", "64K", "{core}"),
    ("index1", 1, "Instruction", "64K", "{core}"),
    ("index2", 2, "Unified", "512K", "{core}"),
    ("index3", 3, "Unified", "2048K", "{all}"),
)
_FREQUENCY_KHZ = "2400000"


def files() -> dict[str, str]:
    """Path below `/` -> text, of /proc/cpuinfo and /sys/devices/system/cpu."""
    all_cores = f"0-{CORES - 1}"
    found = {"proc/cpuinfo": "".join(_CPUINFO.format(core=core, features=_FEATURES) for core in range(CORES))}
    top = {"possible": all_cores, "present": all_cores, "online": all_cores, "kernel_max": str(CORES - 1)}
    for core in range(CORES):
        top |= {
            f"cpu{core}/topology/core_id": str(core),
            f"cpu{core}/topology/physical_package_id": "0",
            f"cpu{core}/topology/cluster_cpus_list": all_cores,
            f"cpu{core}/topology/core_siblings_list": all_cores,
            f"cpu{core}/cpufreq/cpuinfo_max_freq": _FREQUENCY_KHZ,
            f"cpu{core}/cpufreq/cpuinfo_min_freq": _FREQUENCY_KHZ,
        }
        for index, level, kind, size, shared in _CACHES:
            cache = f"cpu{core}/cache/{index}"
            of = shared.format(core=core, all=all_cores)
            top |= {f"{cache}/level": str(level), f"{cache}/type": kind, f"{cache}/size": size}
            top |= {f"{cache}/shared_cpu_list": of, f"{cache}/coherency_line_size": "64"}
    return found | {f"sys/devices/system/cpu/{name}": f"{text}\n" for name, text in top.items()}


def write(root: Path) -> None:
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
