"""Files on a phone: list, send and remove them; a file is sent only if the same bytes are not there already.

The service is that of adb's own source, file_sync_service.h: requests of four letters and a length, data in pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import socket
import struct
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from targets.devices.adb.shell import Shell, connection
from targets.devices.device import Say
from targets.types import TargetError

if TYPE_CHECKING:
    from adbutils import AdbConnection


PIECE_BYTES = 64 * 1024  # SYNC_DATA_MAX
MODE = 0o100644


@dataclass
class FileLink(AbstractContextManager["FileLink"]):
    """One connection to the service, for as long as one request of the shell may take; a context manager."""

    shell: Shell
    _deadline: float = field(init=False, default=0.0)
    _stream: AdbConnection | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self.shell.limit_s
        self._stream = connection(self.shell.serial, "sync:", self.shell.limit_s)
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def send(self, source: BinaryIO, path: str, what: str) -> int:
        """Write everything of `source` to `path`; how many bytes that were.

        Raises:
            TargetError: stage "device", refused there (disk full), too slow, or the link was lost.
        """
        sent = 0
        try:
            self._write(b"SEND" + _counted(f"{path},{MODE}".encode()))
            while piece := source.read(PIECE_BYTES):
                self._write(b"DATA" + _counted(piece))
                sent += len(piece)
            self._write(b"DONE" + struct.pack("<I", 0))
            kind, size = self._head()
            if kind == b"FAIL":
                raise self.shell.error(f"{what} was refused: {self._read(size).decode(errors='replace')}")
            if kind != b"OKAY":
                raise self.shell.error(f"{what}: the link answers {kind!r}")
            return sent
        except OSError as error:
            raise self._lost(error, f"{what}, {sent} bytes of it sent") from error

    def fetch(self, path: str, expected_bytes: int, what: str) -> bytes:
        """The file at `path`, which has to have exactly so many bytes.

        Raises:
            TargetError: stage "device", it is not there or of another size, too slow, or the link was lost.
        """
        got = bytearray()
        try:
            self._write(b"RECV" + _counted(path.encode()))
            while True:
                kind, size = self._head()
                if kind == b"DONE":
                    break
                if kind == b"FAIL":
                    said = self._read(size).decode(errors="replace")
                    raise self.shell.error(f"{what} cannot be read there: {said}")
                if kind != b"DATA" or size > PIECE_BYTES or len(got) + size > expected_bytes:
                    raise self.shell.error(f"{what} is larger than the {expected_bytes} bytes it must have")
                got += self._read(size)
        except OSError as error:
            raise self._lost(error, what) from error
        if len(got) != expected_bytes:
            raise self.shell.error(f"{what} has {len(got)} bytes, not the {expected_bytes} it must have")
        return bytes(got)

    def _head(self) -> tuple[bytes, int]:
        head = self._read(8)
        return head[:4], struct.unpack("<I", head[4:])[0]

    def _read(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            part = self._socket().recv(size - len(got))
            if not part:
                raise ConnectionError("the stream ended")
            got += part
        return bytes(got)

    def _write(self, data: bytes) -> None:
        self._socket().sendall(data)

    def _socket(self) -> socket.socket:
        assert self._stream is not None
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._stream.conn.settimeout(left_s)
        return self._stream.conn

    def _lost(self, error: OSError, what: str) -> TargetError:
        if isinstance(error, TimeoutError):
            limit = f"{self.shell.limit_s:g} s: use a faster link, or raise the limit"
            return self.shell.error(f"{what}: not done within {limit}")
        return self.shell.error(f"{what}: the link was lost ({error})")


def _counted(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


#: The one folder of this project on a phone: a place that the shell may write to and run programs from.
ROOT = "/data/local/tmp/edge-t2t"
SPARE_BYTES = 16_000_000
SAY_BYTES = 4_000_000


@dataclass(frozen=True)
class Pusher:
    """Attributes:
    shell: of the phone.
    """

    shell: Shell
    say: Say

    def push(self, path: Path, executable: bool = False) -> str:
        """The path there, below ROOT. Its name is the digest: no character of the local name gets there.

        Raises:
            TargetError: stage "device", not enough room, not what was sent, too slow, or the link dropped.
        """
        try:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = path.stat().st_size
        except OSError as error:
            raise TargetError("device", f"{path} cannot be read: {error}") from error
        goal = f"{ROOT}/{sha256}"
        self.shell.checked(["mkdir", "-p", ROOT], f"making {ROOT}")
        if self._digest(goal) == sha256:
            return goal
        require_room(self.shell, path.name, size)
        if size > SAY_BYTES:
            self.say(f"adb:{self.shell.serial}: sending {path.name}, {size / 1e6:.1f} MB")
        aside = f"{ROOT}/.part-{secrets.token_hex(8)}"
        try:
            with path.open("rb") as stream, FileLink(self.shell) as link:
                link.send(stream, aside, path.name)
            if (arrived := self._digest(aside)) != sha256:
                raise self.shell.error(
                    f"{path.name} has sha256 {(arrived or 'none')[:12]} there, not {sha256[:12]}: it was changed "
                    "during the push, or the storage fails"
                )
            if executable:
                self.shell.checked(["chmod", "755", aside], f"making {path.name} executable")
            self.shell.checked(["mv", "-f", aside, goal], f"moving {path.name} into place")
        except TargetError:
            with contextlib.suppress(TargetError):  # the error that led here says more
                self.shell.run(["rm", "-f", aside])
            raise
        return goal

    def _digest(self, path: str) -> str | None:
        ended = self.shell.run(["sha256sum", path])
        found = re.match(r"([0-9a-f]{64})\s", ended.output)
        return found[1] if found and not ended.status else None


def require_room(shell: Shell, what: str, size: int) -> None:
    """What `df` does not tell is left to the push itself.

    Raises:
        TargetError: stage "device", there is less room below ROOT than `size` bytes and SPARE_BYTES.
    """
    ended = shell.run(["df", "-k", ROOT])
    line = ended.output.strip().splitlines()[-1] if ended.output.strip() else ""
    numbers = re.findall(r"\s(\d+)(?=\s)", line)
    if ended.status or len(numbers) < 3:
        return
    free = 1024 * int(numbers[2])  # 1K-blocks, used, available
    if free < size + SPARE_BYTES:
        raise TargetError(
            "device",
            f"the disk of adb:{shell.serial} is full: {what} needs {size / 1e6:.1f} MB and "
            f"{SPARE_BYTES / 1e6:.1f} MB beside it, {free / 1e6:.1f} MB are free: make room, or "
            f"`adb shell rm -r {ROOT}`",
        )
