"""A worker process under emulation, which was seen to compute rightly before a file is opened in it."""

from __future__ import annotations

from pathlib import Path

from targets.devices.arm64.emulation import Emulation
from targets.devices.arm64.known_products import check
from targets.types import Capability, TargetError, Unavailable
from targets.worker.client import TIMEOUT_S, RemoteSession
from targets.worker.host import HostWorker

LITERT = "litert"
EXECUTORCH = "executorch"
# Which packages of the folder a runtime needs, and why one may be missing.
_NEEDS = {LITERT: ("ai_edge_litert",), EXECUTORCH: ("executorch", "torch")}
_MISSING = {
    EXECUTORCH: "its Python runtime needs torch, whose arm64 wheel on PyPI is a CUDA build that does not load without "
    "several GB of NVIDIA's libraries"
}


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
