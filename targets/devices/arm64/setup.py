"""Make the folder that emulation needs: Debian for arm64, QEMU, and arm64 wheels of the runtimes installed here.

It lies in the cache under the digest of what goes into it, and appears whole or not at all. Deleting it removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from targets.devices import debian_packages
from targets.devices.arm64 import processor
from targets.devices.arm64.emulation import PYTHON, QEMU, SITE, Arm64Worker, Emulation
from targets.devices.debian_packages import DebianUnavailable
from targets.types import TargetError, Unavailable

#: A folder that was prepared elsewhere.
GIVEN = "EDGE_T2T_ARM64_SYSROOT"
CACHE = "EDGE_T2T_CACHE"
COMMAND = "python main.py devices --setup-arm64"
# The newest Debian whose qemu-user takes plugins (trixie's is a static program), and has Python 3.11.
SUITE = "bookworm"
PACKAGES = ("python3.11", "libstdc++6")
#: With what it requires, in the versions that are installed here.
WHEELS = ("ai-edge-litert",)
# Counted up when the folder's inside changes.
LAYOUT = 1
# Wheels name the oldest C library that they run with; bookworm's is 2.36.
_PLATFORMS = tuple(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1))
_LIMIT_S = 900.0


def folder() -> Path:
    """EDGE_T2T_ARM64_SYSROOT, else where `prepare` puts it; it need not be there."""
    if given := os.environ.get(GIVEN):
        return Path(given).expanduser().absolute()
    cache = os.environ.get(CACHE)
    top = Path(cache).expanduser() if cache else Path.home() / ".cache" / "edge-t2t"
    parts = [LAYOUT, SUITE, PACKAGES, sorted(wheels().items()), sorted(processor.files().items())]
    return top.absolute() / "arm64" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def ready() -> str:
    """Why nothing can be emulated here, and what to do; empty where it can."""
    if sys.platform != "linux":
        return Emulation(Path()).missing()
    try:
        place = folder()
    except metadata.PackageNotFoundError as error:
        return f"{error.name} is not installed: pip install -c constraints.txt -e ."
    if place.is_dir():
        return Emulation(place).missing()
    if os.environ.get(GIVEN):
        return f"{GIVEN} names {place}, which is no folder"
    return f"not set up: run {COMMAND} (it downloads about 90 MB from Debian and PyPI)"


def prepare(say: Callable[[str], None]) -> Path:
    """The folder, made if it is not there: 90 MB over the network.

    Raises:
        Unavailable: stage "device", packages cannot be had here.
        TargetError: stage "device", what was downloaded does not run or computes wrongly.
    """
    if sys.platform != "linux":
        raise Unavailable("device", ready())
    try:
        place = folder()
    except metadata.PackageNotFoundError as error:
        raise Unavailable("device", ready()) from error
    if place.is_dir() or os.environ.get(GIVEN):
        if reason := ready():
            raise Unavailable("device", reason)
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    except OSError as error:
        raise Unavailable("device", f"{place.parent} cannot be written ({error.strerror}): set {CACHE}") from error
    try:
        _fill(work, say)
        os.chmod(work, 0o755)  # mkdtemp makes it the user's alone
        try:
            work.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    except DebianUnavailable as error:
        raise Unavailable(
            "device",
            f"{error}. Elsewhere (a container of Debian will do) run {COMMAND}, copy the folder that it names, and set "
            f"{GIVEN} to the copy",
        ) from error
    except OSError as error:
        raise TargetError("device", f"{place.parent} cannot be written ({error.strerror}): set {CACHE}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def wheels() -> dict[str, str]:
    """Package -> version of WHEELS and what they require, as installed here.

    Raises:
        PackageNotFoundError: one is not.
    """
    found: dict[str, str] = {}
    waiting = [(name, False) for name in WHEELS]
    while waiting:
        name, conditional = waiting.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if conditional:  # for another system, or an older Python
                continue
            raise
        for requirement in metadata.requires(name) or ():
            if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
                waiting.append((match[0], ";" in requirement))
    return found


def _fill(work: Path, say: Callable[[str], None]) -> None:
    debian_packages.unpack(PACKAGES, SUITE, "arm64", work / "root", say)
    debian_packages.unpack(("qemu-user",), SUITE, _this_architecture(), work / "qemu", say)
    _keep_what_runs(work)
    processor.write(work / "root")
    _install_wheels(work / SITE, say)
    say("starting the emulated Python for the first time, and checking what it computes")
    with Arm64Worker(Emulation(work), _LIMIT_S) as worker:
        worker.hello()


def _this_architecture() -> str:
    done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def _keep_what_runs(work: Path) -> None:
    """Leave out documentation, and the other emulators; and what would hide files of this machine from the guest."""
    for top in ("root", "qemu"):
        for name in ("usr/share", "usr/sbin", "var", "etc", "sbin"):
            path = work / top / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
    for path in (work / "qemu/usr/bin").iterdir():
        if path != work / QEMU:
            path.unlink()
    if not (work / PYTHON).exists():
        raise TargetError("device", f"Debian {SUITE} for arm64 has no {PYTHON}: its packages changed")


def _install_wheels(site: Path, say: Callable[[str], None]) -> None:
    pinned = [f"{name}=={version}" for name, version in sorted(wheels().items())]
    say(f"installing for arm64: {', '.join(pinned)}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--target", str(site), "--python-version", "311", "--implementation", "cp"]
    command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    try:
        done = subprocess.run([*command, *pinned], capture_output=True, text=True, errors="replace", timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable("device", f"pip took more than {_LIMIT_S:g} s: is there a network?") from None
    if done.returncode:
        cause = " ".join(line for line in done.stderr.splitlines() if line.startswith("ERROR"))[-500:]
        said = " ".join(done.stderr.split())[-300:]
        raise Unavailable("device", f"pip cannot install the arm64 wheels of {', '.join(WHEELS)}: {cause or said}")
