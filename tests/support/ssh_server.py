"""An SSH server on 127.0.0.1 that runs real processes, in a process of its own, with its own host key and home folder.

`python ssh_server.py FOLDER` serves until its input ends; `SshServer` starts that program for a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from targets.devices.address import Address  # noqa: E402
from targets.devices.device import DeviceOptions  # noqa: E402

USER = "board"


class SshServer:
    """The server as a context manager.

    Args:
        folder: gets the keys, known_hosts, and `home`, the home folder of all sessions.
        environment: of the sessions, added to this process's own.
    """

    def __init__(self, folder: Path, environment: dict[str, str] | None = None):
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        make_keys(folder)
        self.fill_disk(None)
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> SshServer:
        # Its own session: a test may stop or kill all of it.
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::RuntimeWarning", __file__, str(self.folder), json.dumps(self._environment)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.know(self.port)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def know(self, port: int) -> None:
        """Write known_hosts for the host key at `port`: of this server, or of a proxy before it."""
        public = (self.folder / "host_key.pub").read_text()
        with self.known_hosts.open("a") as known:
            known.write(f"[127.0.0.1]:{port} {public}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def fill_disk(self, left_bytes: int | None) -> None:
        """Let each SFTP session that begins from now on write so many bytes until the disk is full; None: no limit."""
        (self.folder / "disk_bytes").write_text(json.dumps(left_bytes))

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def address(self, port: int | None = None) -> Address:
        return Address("ssh", "127.0.0.1", USER, port or self.port)

    def options(self, timeout_s: float = 120.0, **others: Any) -> DeviceOptions:
        """Whose identity and known_hosts are this server's, and whose Python is this one."""
        settings = {"known_hosts": self.known_hosts, "identity": self.folder / "user_key", "python": sys.executable}
        return DeviceOptions(timeout_s=timeout_s, **{**settings, **others})


def make_keys(folder: Path) -> None:
    for name in ("host_key", "user_key"):
        if not (folder / name).exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(folder / name))
            key.write_public_key(str(folder / f"{name}.pub"))
            (folder / name).chmod(0o600)


async def _serve(folder: Path, environment: dict[str, str]) -> None:
    class Sftp(asyncssh.SFTPServer):
        def __init__(self, channel: asyncssh.SSHServerChannel):
            super().__init__(channel)
            self._left: int | None = json.loads((folder / "disk_bytes").read_text())

        async def write(self, file: Any, offset: int, data: bytes) -> int:  # type: ignore[override]
            if self._left is not None:
                self._left -= len(data)
                if self._left < 0:
                    # As OpenSSH's sftp-server says it: version 3 of the protocol has no name for it.
                    raise asyncssh.SFTPFailure("Failure")
            return super().write(file, offset, data)  # type: ignore[return-value]

    async def session(process: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", process.command or "true"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder / "home",
            env={**os.environ, **environment, "HOME": str(folder / "home")},
            start_new_session=True,
        )
        assert child.stdin is not None

        async def forward(source: Any, goal: Any) -> None:
            with contextlib.suppress(OSError, asyncssh.Error):
                while part := await source.read(1 << 16):
                    goal.write(part)
                    await goal.drain()

        async def feed() -> None:
            await forward(process.stdin, child.stdin)
            child.stdin.close()  # type: ignore[union-attr]

        feeding = asyncio.create_task(feed())
        await asyncio.gather(forward(child.stdout, process.stdout), forward(child.stderr, process.stderr))
        status = await child.wait()
        feeding.cancel()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "user_key.pub"),
        process_factory=session,
        sftp_factory=Sftp,
        encoding=None,
    )
    print(server.get_port(), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
