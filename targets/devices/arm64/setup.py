"""Set up the folder that emulation needs: Debian for arm64, QEMU, and the arm64 wheels of the runtimes.

It lies in the cache under the digest of what goes into it, and appears whole or not at all. Deleting it removes it.

apt itself resolves, downloads and verifies, with lists and an empty package database of its own: nothing is installed
on this machine, nothing of it is changed, and no root is needed. The mirror is the machine's own.
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
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from targets.devices.arm64 import emulation as processor
from targets.devices.arm64.emulation import PYTHON, QEMU, SITE, Arm64Worker, Emulation
from targets.types import TargetError, Unavailable
from targets.worker.host import run

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
    unpack(PACKAGES, SUITE, "arm64", work / "root", say)
    unpack(("qemu-user",), SUITE, run(["dpkg", "--print-architecture"], 60).stdout.strip(), work / "qemu", say)
    _keep_what_runs(work)
    processor.write(work / "root")
    _install_wheels(work / SITE, say)
    say("starting the emulated Python for the first time, and checking what it computes")
    with Arm64Worker(Emulation(work), _LIMIT_S) as worker:
        worker.hello()


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
        done = run([*command, *pinned], _LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable("device", f"pip took more than {_LIMIT_S:g} s: is there a network?") from None
    if done.returncode:
        cause = " ".join(line for line in done.stderr.splitlines() if line.startswith("ERROR"))[-500:]
        said = " ".join(done.stderr.split())[-300:]
        raise Unavailable("device", f"pip cannot install the arm64 wheels of {', '.join(WHEELS)}: {cause or said}")


#: Signs the Release files of every suite that is still supported.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Folders at the root that are links into /usr since Debian 12; packages of older suites still name them.
_MERGED = ("bin", "sbin", "lib", "lib64")
# A suite's lists are 10 to 20 MB, qemu-user 70 MB.
_DOWNLOAD_LIMIT_S = 900.0


class DebianUnavailable(Exception):
    """Packages of Debian cannot be had here; the message says why, in one line."""


def unpack(packages: Sequence[str], suite: str, architecture: str, into: Path, say: Callable[[str], None]) -> None:
    """Unpack `packages` and what they depend on into the new folder `into`. Recommended packages are left out.

    Their maintainer scripts are not run: what these would set up (caches, alternatives, users) is missing.

    Args:
        packages: names; all from one suite.
        suite: "bookworm", "trixie".
        architecture: as Debian calls it: "amd64", "arm64". It need not be this machine's.
        say: told what is downloaded.

    Raises:
        DebianUnavailable: no apt here, no mirror of Debian among its sources, no keyring, no network, or no such
            package.
        OSError: `into` cannot be written.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DebianUnavailable(f"there is no {program} on this machine: packages of Debian cannot be unpacked")
    mirror = _mirror()
    if not KEYRING.is_file():
        raise DebianUnavailable(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=into.parent) as work:
        apt = _private_apt(Path(work), mirror, suite, architecture)
        say(f"downloading {', '.join(packages)} of Debian {suite} for {architecture}")
        _run([*apt, "update"])
        _run([*apt, "install", "--yes", "--download-only", *packages])
        archives = sorted(Path(work, "cache/archives").glob("*.deb"))
        if not archives:
            raise DebianUnavailable(f"apt-get downloaded nothing for {', '.join(packages)} of {suite} {architecture}")
        for folder in _MERGED:
            (into / "usr" / folder).mkdir(parents=True)
            (into / folder).symlink_to(f"usr/{folder}")
        for archive in archives:
            _run(["dpkg-deb", "--extract", str(archive), str(into)])


def _mirror() -> str:
    """Where this machine's apt has Debian from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages"])
    lines = [line.partition("|") for line in listed.splitlines()]
    # The origin is known once lists were downloaded; else the archive's own name for its folder tells.
    for origin, _, uri in lines:
        if (origin == "Debian" or not origin) and re.search(r"/debian/?$", uri):
            return uri
    for origin, _, uri in lines:
        if origin == "Debian" and "security" not in uri:
            return uri
    raise DebianUnavailable("apt's sources on this machine name no mirror of Debian: add one, with its keyring")


def _private_apt(folder: Path, mirror: str, suite: str, architecture: str) -> list[str]:
    """apt-get with lists, archives, sources and a package database in `folder`."""
    for name in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "extended_states").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    settings = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",  # the folder is the user's own; apt's user may not look into it
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
        "Binary::apt-get::APT::Keep-Downloaded-Packages": "true",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    return ["apt-get", "--quiet=2", *options]


def _run(command: Sequence[str]) -> str:
    name = Path(command[0]).name
    try:
        done = run(command, _DOWNLOAD_LIMIT_S, {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})
    except subprocess.TimeoutExpired:
        raise DebianUnavailable(f"{name} took more than {_DOWNLOAD_LIMIT_S:g} s: is there a network?") from None
    problems = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:", "dpkg-deb:"))]
    failed_lists = [line for line in done.stderr.splitlines() if line.startswith("W: Failed to fetch")]
    if done.returncode or failed_lists:  # `apt-get update` returns 0 with a warning where it could fetch nothing
        cause = " | ".join((problems or failed_lists or done.stderr.splitlines())[-3:])
        raise DebianUnavailable(f"{name} failed with status {done.returncode}: {cause or 'no message'}")
    return done.stdout
