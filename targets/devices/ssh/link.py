"""The streams of a worker behind SSH, and how it ended: a targets.worker.client.Link over a connection."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import TYPE_CHECKING, BinaryIO, cast

from targets.devices.ssh.connection import loop
from targets.worker.client import EXIT_GRACE_S
from targets.worker.host import STDERR_TAIL_CHARS, tail

if TYPE_CHECKING:
    import asyncssh

_READ_BYTES = 1 << 16
# Handed to the connection at once, so that a payload of 100 MB is not held in memory a second time.
_WRITE_BYTES = 1 << 18
_CLOSE_S = 2.0


class SshLink:
    """A worker on a device, its streams, and the connection that belongs to it alone.

    Killing it is cutting the connection: it needs no answer of a device that may have none to give, and the keeper
    there (targets.devices.ssh.keeper) ends the worker when its input ends.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes], label: str):
        self.connection = connection
        self._process = process
        self._label = label
        self._stderr = b""
        self._collecting = asyncio.ensure_future(self._collect())  # made in the loop
        self.requests = cast(BinaryIO, _Requests(process))
        self.replies = cast(BinaryIO, io.BufferedReader(_Replies(process), _READ_BYTES))

    def kill(self) -> None:
        loop().soon(self.connection.abort)

    def how_it_ended(self) -> str:
        return loop().run(self._how_it_ended())

    def last_words(self) -> str:
        return tail(self._stderr.decode(errors="replace"))

    def finish(self, politely: bool) -> None:
        loop().run(self._finish(politely))

    async def _how_it_ended(self) -> str:
        try:
            async with asyncio.timeout(EXIT_GRACE_S):
                await self._process.channel.wait_closed()
                await asyncio.wait([self._collecting], timeout=_CLOSE_S)
        except TimeoutError:
            self.connection.abort()
        if name := self._process.exit_signal:
            return f"the runtime aborted: signal SIG{name[0]}"
        status = self._process.exit_status
        if status is not None:
            return f"the worker ended with status {status}"
        return f"the connection to {self._label} was lost, or its server ended the worker without a word"

    async def _finish(self, politely: bool) -> None:
        import asyncssh

        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            if politely:
                async with asyncio.timeout(EXIT_GRACE_S):
                    self._process.stdin.write_eof()
                    await self._process.channel.wait_closed()
                    self.connection.close()
                    await self.connection.wait_closed()
        self.connection.abort()
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(_CLOSE_S):
                await self.connection.wait_closed()
        self._collecting.cancel()

    async def _collect(self) -> None:
        """Keep the end of the standard error: a pipe that nobody reads stops the worker."""
        import asyncssh

        with contextlib.suppress(OSError, asyncssh.Error):
            while part := await self._process.stderr.read(_READ_BYTES):
                self._stderr = (self._stderr + part)[-4 * STDERR_TAIL_CHARS :]


class _Requests(io.RawIOBase):
    """The worker's standard input; a write returns when the connection has taken all of it."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]):
        self._process = process

    def writable(self) -> bool:
        return True

    # Any bytes-like object, as RawIOBase has it.
    def write(self, data: bytes) -> int:  # type: ignore[override]
        return loop().run(self._write(memoryview(data)))

    async def _write(self, data: memoryview) -> int:
        import asyncssh

        try:
            for start in range(0, len(data), _WRITE_BYTES):
                self._process.stdin.write(bytes(data[start : start + _WRITE_BYTES]))
                await self._process.stdin.drain()
        except asyncssh.Error as error:
            raise OSError(f"the connection was lost: {error}") from error
        return len(data)


class _Replies(io.RawIOBase):
    """The worker's standard output."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]):
        self._process = process

    def readable(self) -> bool:
        return True

    # Any writable buffer, as RawIOBase has it.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = loop().run(self._read(len(buffer)))
        buffer[: len(part)] = part
        return len(part)

    async def _read(self, size: int) -> bytes:
        import asyncssh

        try:
            return await self._process.stdout.read(size)
        except asyncssh.Error as error:
            raise OSError(f"the connection was lost: {error}") from error
