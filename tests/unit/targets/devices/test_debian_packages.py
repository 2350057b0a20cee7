"""Debian packages without Debian: what is told where they cannot be had, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from targets.devices.arm64 import setup as debian_packages
from targets.devices.arm64.setup import DebianUnavailable, unpack

ProgramMaker = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramMaker:
    """Writes shell programs into a folder that is all of PATH; `apt-get` and `dpkg-deb` are given, and do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(debian_packages, "KEYRING", keyring)

    def write(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    write("apt-get", "exit 0")
    write("dpkg-deb", "exit 0")
    return write


def refused(into: Path) -> str:
    into.parent.mkdir()
    with pytest.raises(DebianUnavailable) as error:
        unpack(["hello"], "bookworm", "arm64", into, lambda line: None)
    assert not into.exists()
    assert not list(into.parent.glob(".*"))  # the folder that it works in
    return str(error.value)


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no apt-get on this machine" in refused(tmp_path / "cache/root")


def test_a_machine_of_another_distribution_has_no_mirror(program: ProgramMaker, tmp_path: Path) -> None:
    program("apt-get", "echo 'Ubuntu|https://mirror.test/ubuntu/'")
    assert "no mirror of Debian" in refused(tmp_path / "cache/root")


@pytest.mark.parametrize("listed", ["Debian|https://mirror.test/debian/", "|https://mirror.test/debian"])
def test_the_machines_own_mirror_is_used_and_its_error_told(listed: str, program: ProgramMaker, tmp_path: Path) -> None:
    """Also before the lists were ever downloaded, when apt knows no origin."""
    seen = tmp_path / "sources"
    program(
        "apt-get",
        f"""case "$*" in
          *indextargets*) echo '{listed}' ;;
          *update*) for word; do case $word in Dir::Etc::sourcelist=*) read line < "${{word#*=}}"; echo "$line" > {seen}
            ;; esac; done; echo 'E: The repository does not have a Release file.' >&2; exit 100 ;;
        esac""",
    )
    assert "apt-get failed with status 100: E: The repository does not have a Release file." in refused(
        tmp_path / "cache/root"
    )
    signed, uri, suite, component = seen.read_text().split()[1:]
    assert signed == f"[signed-by={debian_packages.KEYRING}]"
    assert (uri.rstrip("/"), suite, component) == ("https://mirror.test/debian", "bookworm", "main")


def test_lists_that_could_not_be_fetched_are_an_error_though_apt_calls_them_a_warning(
    program: ProgramMaker, tmp_path: Path
) -> None:
    program(
        "apt-get",
        """case "$*" in
          *indextargets*) echo 'Debian|https://mirror.test/debian/' ;;
          *update*) echo 'W: Failed to fetch https://mirror.test/debian/dists: no such host' >&2 ;;
        esac""",
    )
    assert "W: Failed to fetch" in refused(tmp_path / "cache/root")


def test_an_apt_that_downloads_nothing_is_an_error(program: ProgramMaker, tmp_path: Path) -> None:
    program("apt-get", "case \"$*\" in *indextargets*) echo 'Debian|https://mirror.test/debian/' ;; esac")
    assert "downloaded nothing for hello of bookworm arm64" in refused(tmp_path / "cache/root")


def test_a_missing_keyring_is_told(program: ProgramMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("apt-get", "echo 'Debian|https://mirror.test/debian/'")
    monkeypatch.setattr(debian_packages, "KEYRING", tmp_path / "absent.gpg")
    assert "apt-get install debian-archive-keyring" in refused(tmp_path / "cache/root")
