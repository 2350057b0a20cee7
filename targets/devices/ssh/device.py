"""The device `ssh:USER@HOST`: a Linux board or a Mac that runs workers of this project."""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from targets import registry
from targets.devices.address import Address
from targets.devices.device import Device, DeviceOptions, Found, Say
from targets.devices.ssh.connection import FOLDER, INSTALL, ask, connect, deadline, loop, python_word, require_asyncssh
from targets.devices.ssh.push import NoRoom, Pusher, write_bundle
from targets.devices.ssh.there import IMAGES
from targets.types import TargetError
from targets.worker.client import EXIT_GRACE_S, WorkerClient
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.host import STDERR_TAIL_CHARS, tail
from targets.worker.wire import Message

if TYPE_CHECKING:
    import asyncssh


# A chunk that is smaller goes with its request: asking the device whether it has it takes as long.
INLINE_BYTES = 250_000
# Images are kept on a device only while this stays free there: they fill a memory card soon.
IMAGES_SPARE_BYTES = 2_000_000_000


class SshDevice:
    """A Linux board or a Mac behind SSH. Each worker has a connection of its own."""

    times = True

    def __init__(self, address: Address, options: DeviceOptions, say: Say):
        self.address = address
        self._options = options
        self._say = say
        self._watcher: SshWorker | None = None

    def facts(self) -> DeviceFacts:
        with self.worker() as worker:  # it imports the runtimes, which may abort
            return worker.facts()

    def conditions(self) -> Conditions:
        """Asked of a worker that runs nothing else, and stays until `close`: starting one warms a small board."""
        if self._watcher is None:
            self._watcher = SshWorker(self.address, self._options, self._say).__enter__()
        try:
            return self._watcher.conditions()
        except TargetError:
            self.close()  # the next call starts another
            raise

    def runtimes(self, target: str, compute_units: str) -> tuple[str, ...]:
        return registry.runtimes(target, compute_units)

    def worker(self) -> SshWorker:
        return SshWorker(self.address, self._options, self._say)

    def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.__exit__()


class SshWorker(WorkerClient):
    """A worker on the device, as a context manager.

    Args:
        command: the program that speaks the protocol there; the worker of this project if None.
    """

    def __init__(self, address: Address, options: DeviceOptions, say: Say, command: Sequence[str] | None = None):
        super().__init__(options.timeout_s, options.cpus)
        self._address = address
        self._options = options
        self._say = say
        self._command = list(command or ())
        self._pusher: Pusher | None = None

    def _start(self) -> SshLink:
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            return loop().run(self._started(write_bundle(Path(folder) / "targets.zip")))

    def _sent(self, path: Path) -> str:
        if self._pusher is None or self._link is None or self._end is not None:
            return str(path)  # the request that follows says why there is no worker
        return loop().run(self._pusher.push(path.resolve(), "files"))

    def _images(self, batch: np.ndarray) -> tuple[Message, np.ndarray | None]:
        """Large chunks go by hash: the images of a validation travel once for all files. A device that has no
        room to spare keeps none."""
        if batch.nbytes < INLINE_BYTES or self._pusher is None or self._link is None or self._end is not None:
            return {}, batch
        with tempfile.TemporaryDirectory(prefix="images-") as folder:
            path = Path(folder) / "images.npy"
            np.save(path, batch, allow_pickle=False)
            try:
                # In silence: the progress of a validation is told by images, not by chunks of them.
                pusher = replace(self._pusher, say=lambda line: None, spare_bytes=IMAGES_SPARE_BYTES)
                return {"images": loop().run(pusher.push(path, IMAGES))}, None
            except NoRoom:
                return {}, batch

    async def _started(self, bundle: Path) -> SshLink:
        label, python, limit_s = self._address.label, self._options.python, self._options.timeout_s
        connection = await connect(self._address, self._options)
        try:
            about = await ask(connection, label, python, limit_s, "about", folder=FOLDER)
            if not about["numpy"][:1].isdigit():
                raise TargetError("device", f"{python!r} of {label}: numpy {about['numpy']}: {INSTALL}")
            root = str(about["root"])
            self._pusher = Pusher(connection, label, python, root, limit_s, self._say)
            code = await self._pusher.push(bundle, "code")
            mark = secrets.token_hex(8)
            keeper = [mark, f"{root}/tmp", *self._command]
            command = (
                f"exec env {shlex.quote(f'PYTHONPATH={code}')} {python_word(python)} "
                f"-P -m targets.devices.ssh.keeper {shlex.join(keeper)}"
            )
            return SshLink(connection, await self._process(connection, command, mark), label)
        except BaseException:
            connection.abort()
            raise

    async def _process(
        self, connection: asyncssh.SSHClientConnection, command: str, mark: str
    ) -> asyncssh.SSHClientProcess[bytes]:
        """Start the keeper, and read its output up to where the worker's begins."""
        import asyncssh

        label, limit_s = self._address.label, self._options.timeout_s
        with deadline(connection, limit_s) as limit:
            try:
                process = await connection.create_process(command, encoding=None, request_pty=False)
                await process.stdout.readuntil(mark.encode() + b"\n")
                return process
            except asyncio.IncompleteReadError as error:
                words = tail((await process.stderr.read()).decode(errors="replace"))
                raise TargetError("device", f"{label}: the worker did not start: {words}") from error
            except (asyncssh.Error, OSError) as error:
                why = f"not within {limit_s:g} s" if limit.passed else str(error)
                raise TargetError("device", f"{label}: the worker did not start: {why}") from error


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    require_asyncssh()
    return SshDevice(address, options, say)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    """None: a host has to be named."""
    return ()


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
