"""Send a file, a folder or this project's own code to a device, unless the same bytes are there already."""

from __future__ import annotations

import asyncio
import posixpath
import re
import secrets
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.devices.device import Say
from targets.devices.ssh.connection import FOLDER, ask, deadline
from targets.devices.ssh.there import digest
from targets.types import TargetError
from targets.worker.host import SOURCE_ROOT

if TYPE_CHECKING:
    import asyncssh

# Left free beside what is pushed: the worker's temporary files and the device's own.
SPARE_BYTES = 16_000_000
# Above this a push is announced, and told about every SAY_EVERY_S.
SAY_BYTES = 4_000_000
SAY_EVERY_S = 5.0
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that zip can say
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


def write_bundle(path: Path) -> Path:
    """Write the Python files of `targets` as a zip that Python imports them from; same source, same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for source in sorted((SOURCE_ROOT / "targets").rglob("*.py")):
            entry = zipfile.ZipInfo(source.relative_to(SOURCE_ROOT).as_posix(), _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(entry, source.read_bytes())
    return path


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
