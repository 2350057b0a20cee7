"""The device `ssh:USER@HOST`: a Linux board or a Mac that runs workers of this project."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets import registry
from targets.devices.address import Address
from targets.devices.device import Device, DeviceOptions, Found, Say
from targets.devices.ssh.connection import FOLDER, INSTALL, ask, connect, deadline, loop, python_word, require_asyncssh
from targets.devices.ssh.link import SshLink
from targets.devices.ssh.push import NoRoom, Pusher, write_bundle
from targets.devices.ssh.there import IMAGES
from targets.types import TargetError
from targets.worker.client import WorkerClient
from targets.worker.facts import Conditions, DeviceFacts
from targets.worker.host import tail
from targets.worker.wire import Message

if TYPE_CHECKING:
    import asyncssh


# A chunk that is smaller goes with its request: asking the device whether it has it takes as long.
INLINE_BYTES = 1_000_000
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
            watcher.__exit__(None, None, None)


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
                pusher = replace(self._pusher, say=_quiet, spare_bytes=IMAGES_SPARE_BYTES)
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


def _quiet(line: str) -> None:
    """The progress of a validation is told by images, not by chunks of them."""


def device(address: Address, options: DeviceOptions, say: Say) -> Device:
    require_asyncssh()
    return SshDevice(address, options, say)


def found(options: DeviceOptions) -> tuple[Found, ...]:
    """None: a host has to be named."""
    return ()
