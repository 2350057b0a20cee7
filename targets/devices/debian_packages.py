"""Unpack packages of Debian, with all that they need, into a folder, without installing anything.

apt itself resolves, downloads and verifies, with lists and an empty package database of its own: nothing is installed
on this machine, nothing of it is changed, and no root is needed. The mirror is the machine's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

#: Signs the Release files of every suite that is still supported.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Folders at the root that are links into /usr since Debian 12; packages of older suites still name them.
_MERGED = ("bin", "sbin", "lib", "lib64")
# A suite's lists are 10 to 20 MB, qemu-user 70 MB.
_LIMIT_S = 900.0
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*")


class DebianUnavailable(Exception):
    """Packages of Debian cannot be had here; the message says why, in one line."""


def unpack(
    packages: Sequence[str],
    suite: str,
    architecture: str,
    into: Path,
    say: Callable[[str], None],
) -> Path:
    """Unpack `packages` and what they depend on into the folder `into`, which appears whole or not at all.

    A folder that is there already stays as it is. Recommended packages are left out.

    Their maintainer scripts are not run: what these would set up (caches, alternatives, users) is missing.

    Args:
        packages: names; all from one suite.
        suite: "bookworm", "trixie".
        architecture: as Debian calls it: "amd64", "arm64". It need not be this machine's.
        say: told what is downloaded.

    Raises:
        DebianUnavailable: no apt here, no mirror of Debian among its sources, no keyring, no network, or no such
            package.
        ValueError: a name that is none.
    """
    if into.is_dir():
        return into
    for word, pattern in ((suite, _WORD), (architecture, _WORD), *((package, _NAME) for package in packages)):
        if not pattern.fullmatch(word):
            raise ValueError(f"{word!r} is no name of a Debian package, suite or architecture")
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DebianUnavailable(f"there is no {program} on this machine: packages of Debian cannot be unpacked")
    mirror = _mirror()
    if not KEYRING.is_file():
        raise DebianUnavailable(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        apt = _private_apt(work / "apt", mirror, suite, architecture)
        say(f"downloading {', '.join(packages)} of Debian {suite} for {architecture}")
        _run([*apt, "update"])
        _run([*apt, "install", "--yes", "--download-only", *packages])
        archives = sorted((work / "apt/cache/archives").glob("*.deb"))
        if not archives:
            raise DebianUnavailable(f"apt-get downloaded nothing for {', '.join(packages)} of {suite} {architecture}")
        root = work / "root"
        for folder in _MERGED:
            (root / "usr" / folder).mkdir(parents=True)
            (root / folder).symlink_to(f"usr/{folder}")
        for archive in archives:
            _run(["dpkg-deb", "--extract", str(archive), str(root)])
        os.chmod(root, 0o755)  # mkdtemp's 0700 is of the folder around it
        root.rename(into)
    except OSError as error:
        if into.is_dir():  # another process was faster
            return into
        raise DebianUnavailable(f"{into} cannot be written: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return into


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
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise DebianUnavailable(f"{name} took more than {_LIMIT_S:g} s: is there a network?") from None
    problems = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:", "dpkg-deb:"))]
    failed_lists = [line for line in done.stderr.splitlines() if line.startswith("W: Failed to fetch")]
    if done.returncode or failed_lists:  # `apt-get update` returns 0 with a warning where it could fetch nothing
        cause = " | ".join((problems or failed_lists or done.stderr.splitlines())[-3:])
        raise DebianUnavailable(f"{name} failed with status {done.returncode}: {cause or 'no message'}")
    return done.stdout
