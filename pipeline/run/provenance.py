"""Where a figure comes from: nothing in; tool versions, commit, host, processor and threads out, as plain strings."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from targets.worker.readings import linux

ROOT = Path("/")
PACKAGES = (
    "torch",
    "torchao",
    "torchvision",
    "timm",
    "executorch",
    "coremltools",
    "litert-torch",
    "ai-edge-litert",
    "tensorflow",
    "numpy",
    "scipy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Installed version of each package that decides a result; "not installed" where it is missing."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def host() -> dict[str, str]:
    """Operating system, processor, vector extensions, cores and Python of this machine; no host or user name."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": linux.processor(ROOT) or platform.processor() or "unknown",
        "vector_extensions": " ".join(linux.vector_extensions(ROOT)) or "unknown",
        "cores": str(linux.cores()),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of this checkout, `+changes` where files differ from it, "unknown" outside a checkout."""

    def git(*arguments: str) -> str:
        root = Path(__file__).resolve().parent.parent
        command = ["git", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def collect() -> dict[str, str]:
    """All of the above in one flat dictionary."""
    return {"commit": commit(), **host(), **versions()}
