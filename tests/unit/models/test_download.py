"""The downloader against a real HTTP server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calibration.remote import cache_folder
from pipeline.errors import WeightsError
from pipeline.models import download

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes: several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` at /weights.bin; `cut_after` breaks the next answer off after so many bytes."""

    daemon_threads = True
    content = CONTENT
    etag: str | None = '"v1"'
    ranges = True
    cut_after: int | None = None
    cut_always = False
    fail_with: int | None = None
    fail_count = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted, only_if = self.headers.get("Range"), self.headers.get("If-Range")
        server.seen.append((wanted, only_if))
        if self.path != "/weights.bin":
            self.send_error(404)
            return
        if server.fail_count:
            server.fail_count -= 1
            self.send_error(server.fail_with or 503)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if only_if is not None and only_if != server.etag:
            start = 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.cut_after is not None:
            body = body[: server.cut_after]
            server.cut_after = server.cut_after if server.cut_always else None
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, folder: Path) -> Path:
    return download.fetch(server.url, folder, pause_s=0)


def test_first_download_records_the_digest_and_the_second_call_transfers_nothing(
    server: Server, tmp_path: Path
) -> None:
    first = fetch(server, tmp_path)
    assert first == tmp_path / "weights.bin"
    assert first.read_bytes() == CONTENT
    record = json.loads((tmp_path / "weights.bin.sha256").read_text())
    assert record == {"url": server.url, "sha256": DIGEST, "size_bytes": len(CONTENT)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.bin", "weights.bin.sha256"]

    assert fetch(server, tmp_path) == first
    assert len(server.seen) == 1


def test_cut_at_half_is_continued_within_one_call(server: Server, tmp_path: Path) -> None:
    server.cut_after = len(CONTENT) // 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.seen == [(None, None), (f"bytes={len(CONTENT) // 2}-", '"v1"')]


def test_cut_every_time_keeps_the_part_and_the_next_call_continues_it(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cut_always = 1000, True
    with pytest.raises(WeightsError, match=r"broke off at 3000 of 1024000 bytes.*3000 bytes are kept"):
        fetch(server, tmp_path)
    assert not (tmp_path / "weights.bin").exists()
    assert (tmp_path / "weights.bin.part").read_bytes() == CONTENT[:3000]

    server.cut_after, server.cut_always = None, False
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.seen[-1] == ("bytes=3000-", '"v1"')


def test_server_without_range_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "weights.bin.part").write_bytes(b"x" * 5000)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.seen == [("bytes=5000-", None)]


def test_file_changed_on_the_server_starts_over(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cut_always = 1000, True
    with pytest.raises(WeightsError):
        fetch(server, tmp_path)
    server.cut_after, server.cut_always = None, False
    server.etag, server.content = '"v2"', CONTENT[::-1]
    assert fetch(server, tmp_path).read_bytes() == CONTENT[::-1]


def test_whole_part_left_by_a_crash_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.fail_with, server.fail_count = 503, 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.fail_count = 3
    with pytest.raises(WeightsError, match=r"answered 503.*after 3 attempts"):
        fetch(server, tmp_path / "other")


def test_missing_file_is_told_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.bin answered 404"):
        download.fetch(server.url.replace("weights", "nothing"), tmp_path, pause_s=0)
    assert len(server.seen) == 1
    assert not (tmp_path / "nothing.bin").exists()


def test_damaged_cache_names_both_digests(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError) as caught:
        fetch(server, tmp_path)
    assert hashlib.sha256(b"damaged").hexdigest() in str(caught.value)
    assert DIGEST in str(caught.value)


def test_replaced_release_file_names_both_digests_and_is_not_kept(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path).unlink()
    server.content, server.etag = b"another file", '"v2"'
    with pytest.raises(WeightsError) as caught:
        fetch(server, tmp_path)
    assert hashlib.sha256(b"another file").hexdigest() in str(caught.value)
    assert DIGEST in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".etag")) == ["weights.bin.sha256"]


def test_no_network_is_one_clear_error(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.server_close()  # from here on the port refuses connections
    with pytest.raises(WeightsError, match=r"no connection.*give its path to --weights"):
        download.fetch(url, tmp_path, pause_s=0)


def test_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WeightsError, match="EDGE_T2T_CACHE"):
        fetch(server, tmp_path / "file" / "cache")


def test_second_process_is_told_to_wait(server: Server, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "weights.bin.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another process is downloading"):
            fetch(server, tmp_path)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, folder in ((str(tmp_path / "x"), "x"), ("~/cache", "cache"), ("", ".cache/edge-t2t")):
        monkeypatch.setenv("EDGE_T2T_CACHE", given)
        assert cache_folder() == tmp_path / folder
    monkeypatch.delenv("EDGE_T2T_CACHE")
    assert cache_folder() == tmp_path / ".cache" / "edge-t2t"
