"""A file or folder of this machine in, the path of its bytes on the device out; what is there is not sent twice."""

from __future__ import annotations

import asyncio
import posixpath
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.devices.device import Say
from targets.devices.ssh.advice import FOLDER
from targets.devices.ssh.ask import ask
from targets.devices.ssh.deadline import deadline
from targets.devices.ssh.there import digest
from targets.types import TargetError

if TYPE_CHECKING:
    import asyncssh

# Left free beside what is pushed: the worker's temporary files and the device's own.
SPARE_BYTES = 16_000_000
# Above this a push is announced, and told about every SAY_EVERY_S.
SAY_BYTES = 4_000_000
SAY_EVERY_S = 5.0
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class NoRoom(TargetError):
    """The device's disk is full."""


@dataclass(frozen=True)
class Pusher:
    """What a push needs to know of the connection it goes over.

    Attributes:
        root: the folder of this project there.
        spare_bytes: left free beside what is pushed; None: SPARE_BYTES.
        limit_s: for the whole push of one file or folder; the connection is cut at it.
    """

    connection: asyncssh.SSHClientConnection
    label: str
    python: str
    root: str
    limit_s: float
    say: Say
    spare_bytes: int | None = None

    async def push(self, path: Path, part: str) -> str:
        """The path there, below the folder `part` of `root`. The name is the digest: no
        character of the local name reaches a shell or a file system.

        Raises:
            TargetError: stage "device", not enough room, not what was sent, too slow, or the link dropped.
        """
        sent_bytes = [0]
        with deadline(self.connection, self.limit_s) as limit:
            try:
                return await self._push(path, part, sent_bytes)
            except TargetError as error:
                if not limit.passed:
                    raise
                raise TargetError(
                    "device",
                    f"{self.label}: {path.name} was not there within {self.limit_s:g} s, "
                    f"{_megabytes(sent_bytes[0])} of it went over: use a faster link, or raise the limit",
                ) from error

    async def _push(self, path: Path, part: str, sent_bytes: list[int]) -> str:
        try:
            sha256, size = await asyncio.to_thread(digest, path)
        except OSError as error:
            raise TargetError("device", f"{path} cannot be read: {error}") from error
        suffix = path.suffix if _SUFFIX.fullmatch(path.suffix) else ""
        folder = posixpath.join(self.root, part)
        goal = posixpath.join(folder, sha256 + suffix)
        found = await self._ask("look", path=goal)
        if found["sha256"] == sha256:
            return goal
        if found["free_bytes"] < size + self._spare():
            raise self._full(path.name, size, found["free_bytes"])
        aside = posixpath.join(folder, f".part-{secrets.token_hex(8)}")
        await self._send(path, aside, size, sent_bytes)
        arrived = await self._ask("accept", part=aside, path=goal, sha256=sha256)
        if arrived["sha256"] != sha256:
            raise TargetError(
                "device",
                f"{self.label}: {path.name} has {arrived['size']} bytes and sha256 {arrived['sha256'][:12]}... there, "
                f"not {size} and {sha256[:12]}...: it was changed during the push, or the device's storage fails",
            )
        return goal

    async def _send(self, path: Path, aside: str, size: int, sent_bytes: list[int]) -> None:
        import asyncssh

        told = [time.monotonic()]
        done: dict[bytes, int] = {}

        def progress(source: bytes, target: bytes, sent: int, total: int) -> None:
            done[source] = sent
            sent_bytes[0] = sum(done.values())
            if size > SAY_BYTES and time.monotonic() - told[0] > SAY_EVERY_S:
                told[0] = time.monotonic()
                self.say(f"{self.label}: {path.name}: {_megabytes(sent_bytes[0])} of {_megabytes(size)}")

        if size > SAY_BYTES:
            self.say(f"{self.label}: sending {path.name}, {_megabytes(size)}")
        try:
            sftp = await self.connection.start_sftp_client()
            try:
                await sftp.put(str(path), aside, recurse=path.is_dir(), progress_handler=progress)
            finally:
                sftp.exit()
        except asyncssh.ChannelOpenError as error:
            if self.connection.is_closed():
                raise self._lost(path.name) from error
            raise TargetError(
                "device", f"{self.label} has no SFTP ({error.reason}): install its sftp-server"
            ) from error
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError) as error:
            raise self._lost(path.name) from error
        except (asyncssh.SFTPError, OSError) as error:
            # A full disk is "Failure" in SFTP version 3: the room that is left now tells.
            left = int((await self._ask("drop", part=aside))["free_bytes"])
            full = isinstance(error, asyncssh.SFTPNoSpaceOnFilesystem | asyncssh.SFTPQuotaExceeded)
            if full or left < size + self._spare():
                raise self._full(path.name, size, left) from error
            raise TargetError("device", f"{self.label}: {path.name} could not be written there: {error}") from error

    def _spare(self) -> int:
        return SPARE_BYTES if self.spare_bytes is None else self.spare_bytes

    def _lost(self, name: str) -> TargetError:
        return TargetError("device", f"{self.label}: the connection was lost while {name} was sent")

    def _full(self, name: str, size: int, free: int) -> NoRoom:
        return NoRoom(
            "device",
            f"the disk of {self.label} is full: {name} needs {_megabytes(size)} and {_megabytes(self._spare())} beside "
            f"it, {_megabytes(free)} are free in {self.root}: make room, or remove ~/{FOLDER} there",
        )

    async def _ask(self, op: str, **request: str) -> dict[str, Any]:
        return await ask(self.connection, self.label, self.python, self.limit_s, op, **request)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
