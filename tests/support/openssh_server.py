"""OpenSSH's own server on 127.0.0.1, where it is installed; sessions are of the user who runs the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ssh_server import make_keys

from targets.devices.address import Address
from targets.devices.device import DeviceOptions


def missing() -> str:
    """Why no sshd can be run here; empty where it can."""
    if not _program():
        return "no sshd here: apt-get install openssh-server"
    if os.geteuid() == 0:
        if "sshd" not in {entry.pw_name for entry in pwd.getpwall()}:
            return "sshd needs the user `sshd` when root runs it"
        try:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            return f"sshd needs /run/sshd when root runs it: {error}"
    return ""


class OpenSshServer:
    """As ssh_server.SshServer, with `sshd`; the home folder of the sessions is in `folder` too."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        make_keys(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder / 'host_key'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder / 'user_key.pub'}\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
            f"SetEnv HOME={self.home}\n"
        )
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host_key.pub').read_text()}")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OpenSshServer:
        with (self.folder / "log").open("wb") as log:
            command = [_program(), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        while self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def address(self) -> Address:
        return Address("ssh", "127.0.0.1", self.user, self.port)

    def options(self, timeout_s: float = 120.0, **others: Any) -> DeviceOptions:
        files = {"known_hosts": self.folder / "known_hosts", "identity": self.folder / "user_key"}
        return DeviceOptions(timeout_s=timeout_s, **{**files, **others})


def _program() -> str:
    return shutil.which("sshd") or shutil.which("/usr/sbin/sshd") or ""
