"""`doctor`: this machine in; what can convert and run here, versions, what is missing and how to get it, out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import CellsFailedError
from targets import registry
from targets.types import TargetError
from targets.worker.host import HostWorker

if TYPE_CHECKING:
    from targets.types import Capability


def doctor() -> None:
    from pipeline.run import provenance

    for name, value in provenance.host().items():
        print(f"{name}: {value}")
    print(f"training device: {_device()}")
    broken = [name for name in registry.variants() if not _show(name)]
    missing = [name for name, version in provenance.versions().items() if version == "not installed"]
    if missing:
        print(f"\nnot installed: {', '.join(missing)}; `make setup` installs what constraints.txt pins")
    if broken:
        raise CellsFailedError(f"cannot convert for {', '.join(broken)}: see above")


def _show(name: str) -> bool:
    """Print one target; whether it can convert here."""
    try:
        with HostWorker(timeout_s=300) as worker:
            probe = worker.probe(name)
    except TargetError as error:
        print(f"\n{name}\n  the probe did not come back: {error.cause}")
        return False
    versions = ", ".join(f"{package} {version}" for package, version in probe.versions.items())
    print(f"\n{name} ({versions})")
    print(f"  convert: {_yes(probe.convert)}")
    for runtime, capability in probe.run.items():
        print(f"  run in {runtime}: {_yes(capability)}")
    return probe.convert.available


def _yes(capability: Capability) -> str:
    return "yes" if capability.available else f"no: {capability.reason}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads; no CUDA device seen by torch {torch.__version__})"
