"""Write and read files of a phone over adb's sync service, within a time limit.

The service is that of adb's own source, file_sync_service.h: requests of four letters and a length, data in pieces.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from targets.devices.adb.server import connection
from targets.types import TargetError

if TYPE_CHECKING:
    from adbutils import AdbConnection

PIECE_BYTES = 64 * 1024  # SYNC_DATA_MAX
MODE = 0o100644


@dataclass
class FileLink(AbstractContextManager["FileLink"]):
    """One connection to the service; a context manager.

    Attributes:
        limit_s: for everything that goes over it.
    """

    serial: str
    limit_s: float
    _deadline: float = field(init=False, default=0.0)
    _stream: AdbConnection | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self.limit_s
        self._stream = connection(self.serial, "sync:", self.limit_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                raise TargetError(
                    "device", f"adb:{self.serial}: {what} was refused: {self._read(size).decode(errors='replace')}"
                )
            if kind != b"OKAY":
                raise TargetError("device", f"adb:{self.serial}: {what}: the link answers {kind!r}")
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
                    raise TargetError("device", f"adb:{self.serial}: {what} cannot be read there: {said}")
                if kind != b"DATA" or size > PIECE_BYTES or len(got) + size > expected_bytes:
                    raise TargetError(
                        "device", f"adb:{self.serial}: {what} is larger than the {expected_bytes} bytes it must have"
                    )
                got += self._read(size)
        except OSError as error:
            raise self._lost(error, what) from error
        if len(got) != expected_bytes:
            raise TargetError(
                "device", f"adb:{self.serial}: {what} has {len(got)} bytes, not the {expected_bytes} it must have"
            )
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
            return TargetError(
                "device",
                f"adb:{self.serial}: {what}: not done within {self.limit_s:g} s: use a faster link, or raise the limit",
            )
        return TargetError("device", f"adb:{self.serial}: {what}: the link was lost ({error})")


def _counted(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data
