"""Python on an emulated Arm processor: the commands that start it, and a worker that is checked before it is used.

The folder has `root` (Debian for arm64), `site` (the runtimes' arm64 wheels) and `qemu` (Debian's QEMU for this machine
with all of its libraries, so that it runs on other distributions too; without it, the one on PATH is taken).
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

from targets.devices.arm64 import processor
from targets.devices.arm64.known_products import check
from targets.types import Capability, TargetError, Unavailable
from targets.worker.client import TIMEOUT_S, RemoteSession
from targets.worker.host import SOURCE_ROOT, HostWorker

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


@dataclass(frozen=True)
class Emulation:
    """
    Attributes:
        folder: as targets.devices.arm64.setup makes it.
        cpu: as QEMU calls it. The folder describes processor.CPU; others are there to show what they get wrong.
    """

    folder: Path
    cpu: str = processor.CPU

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
            done = subprocess.run(
                [*self._qemu(), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
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
