"""A proxy on 127.0.0.1 that slows a link down, cuts it after a number of bytes, or lets it go silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path


class Proxy:
    """What stands between a client and a server, as a context manager.

    Args:
        target: a port of 127.0.0.1, or the path of a Unix socket.

    Attributes:
        bytes_per_s: of each direction; None: as fast as it goes.
        silent: nothing goes through any more, and nobody is told: a cable that was pulled.
        passed, sent: bytes that came back from the server, and that went to it, so far.
        was_cut_s: when `cut_after` did what it was asked for, on the clock of time.monotonic(); None: not yet.
    """

    def __init__(self, target: int | Path, bytes_per_s: float | None = None):
        self.bytes_per_s = bytes_per_s
        self.silent = False
        self.passed = self.sent = 0
        self.was_cut_s: float | None = None
        self._cut_at: int | None = None
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept would keep it open
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection now."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def cut_after(self, count: int) -> None:
        """Close every connection when `count` more bytes came back from the server, in the middle of what comes."""
        self._cut_at = self.passed + count

    def mend(self) -> None:
        """As fast as it goes again, with connections that are new."""
        self.bytes_per_s, self.silent, self._cut_at, self.was_cut_s = None, False, None, None
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = self._reach()
                except OSError:  # nobody listens there yet
                    client.close()
                    continue
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _reach(self) -> socket.socket:
        if isinstance(self._target, int):
            server = socket.create_connection(("127.0.0.1", self._target))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return server
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, source: socket.socket, goal: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 14):
                while self.silent:
                    time.sleep(0.02)
                    if goal.fileno() < 0:
                        return
                if self.bytes_per_s:
                    time.sleep(len(part) / self.bytes_per_s)
                if back:
                    if self._cut_at is not None and self.passed + len(part) >= self._cut_at:
                        goal.sendall(part[: self._cut_at - self.passed])
                        self._cut_at, self.was_cut_s = None, time.monotonic()
                        self.cut()
                        return
                    self.passed += len(part)
                else:
                    self.sent += len(part)
                goal.sendall(part)
        with contextlib.suppress(OSError):
            goal.shutdown(socket.SHUT_WR)
