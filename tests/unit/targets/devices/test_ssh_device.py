"""Workers over SSH on loopback, with a real server and real processes: what works, and what is refused how."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import known_worker
import numpy as np
import pytest
from broken_workers import broken, ended, gone, hanging, started
from ssh_server import SshServer
from tcp_proxy import Proxy

from targets.devices.address import Address
from targets.devices.device import DeviceOptions, device_at
from targets.devices.ssh import device as device_module
from targets.devices.ssh import push
from targets.devices.ssh.device import SshDevice, SshWorker
from targets.types import TargetError

IMAGES = np.arange(6 * 3 * 8 * 8, dtype=np.float32).reshape(6, 3, 8, 8)
CONTENT = bytes(range(3, 200)) * 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("ssh")) as one:
        yield one


def worker(server: SshServer, command: list[str] | None = None, port: int | None = None) -> SshWorker:
    return SshWorker(server.address(port), server.options(), print, command)


def artifact(tmp_path: Path, name: str = "a.tflite") -> Path:
    path = tmp_path / name
    path.write_bytes(CONTENT)
    return path


def test_a_real_worker_says_who_it_is_and_ends(server: SshServer) -> None:
    with worker(server) as one:
        hello = one.hello()
        assert hello["pid"] != os.getpid()
        assert Path(f"/proc/{hello['pid']}").exists()
    assert gone(hello["pid"])
    assert not list((server.home / ".cache/edge-t2t/tmp").iterdir())
    with pytest.raises(TargetError, match="is not running"):
        one.hello()


def test_a_file_is_pushed_once_and_computes_there_what_it_computes_here(server: SshServer, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    sent: list[str] = []
    for _ in range(2):
        with SshWorker(server.address(), server.options(), sent.append, known_worker.COMMAND) as one:
            session = one.open("known", path, "known", 1)
            assert session.load_ms == 0.5
            assert np.array_equal(session.infer(IMAGES), known_worker.logits(CONTENT, IMAGES))
            assert session.samples(IMAGES, 5).wall_ms == known_worker.wall_ms(5)
        (there,) = (server.home / ".cache/edge-t2t/files").iterdir()
        written_ns = there.stat().st_mtime_ns
        assert there.read_bytes() == CONTENT
        os.utime(there, ns=(written_ns, written_ns - 10**9))
    assert there.stat().st_mtime_ns == written_ns - 10**9  # the second worker did not write it again
    assert not sent  # nothing to say of a few kilobytes


def test_a_file_that_was_damaged_there_is_sent_again(server: SshServer, tmp_path: Path) -> None:
    path = artifact(tmp_path)
    with worker(server, known_worker.COMMAND) as one:
        one.open("known", path, "known", 1)
        (there,) = (server.home / ".cache/edge-t2t/files").glob("*.tflite")
        there.write_bytes(CONTENT[:-1] + b"?")
        one.open("known", path, "known", 1)
    assert there.read_bytes() == CONTENT


def test_images_travel_once_for_all_files_and_not_at_all_by_hash_where_there_is_no_room(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = np.random.default_rng(0).normal(size=(5, 3, 160, 160)).astype(np.float32)[:, :, ::2]  # 768 kB
    monkeypatch.setattr(device_module, "INLINE_BYTES", 700_000)
    monkeypatch.setattr(device_module, "IMAGES_SPARE_BYTES", 0)
    folder = server.home / ".cache/edge-t2t/images"
    path = artifact(tmp_path)
    with Proxy(server.port) as proxy:
        server.know(proxy.port)
        for sent in (True, False):  # the second worker finds them there
            before = proxy.sent
            with worker(server, known_worker.COMMAND, port=proxy.port) as one:
                session = one.open("known", path, "known", 1)
                assert np.array_equal(session.infer(large), known_worker.logits(CONTENT, large))
                assert np.array_equal(session.infer(IMAGES), known_worker.logits(CONTENT, IMAGES))  # small: inline
            assert (proxy.sent - before > large.nbytes) == sent
            assert [entry.suffix for entry in folder.iterdir()] == [".npy"]
    old = time.time() - 2 * 86400
    (there,) = folder.iterdir()
    os.utime(there, (old, old))
    with worker(server, known_worker.COMMAND) as one:
        session = one.open("known", path, "known", 1)
        monkeypatch.setattr(device_module, "IMAGES_SPARE_BYTES", 1 << 60)
        assert np.array_equal(session.infer(large + 1), known_worker.logits(CONTENT, large + 1))
    assert list(folder.iterdir()) == []  # the old ones are gone, and there was no room for the new ones


def test_a_package_is_a_folder_and_a_large_push_is_told(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a b;touch x.mlpackage"
    (package / "Data" / "weights").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    (package / "Data" / "weights" / "w.bin").write_bytes(CONTENT)
    monkeypatch.setattr(push, "SAY_BYTES", 1000)
    told: list[str] = []
    with SshWorker(server.address(), server.options(), told.append, known_worker.COMMAND) as one:
        remote = Path(one._sent(package))
        assert (remote / "Data" / "weights" / "w.bin").read_bytes() == CONTENT
        assert remote.suffix == ".mlpackage"
        (remote / "Data" / "weights" / "w.bin").write_bytes(b"damaged")
        assert Path(one._sent(package)) == remote
        assert (remote / "Data" / "weights" / "w.bin").read_bytes() == CONTENT
    assert any("sending a b;touch x.mlpackage, 0.0 MB" in line for line in told)


HOSTILE = [
    f"{text}.tflite"
    for text in (
        *("a b", "$(touch X)", "`touch X`", ";touch X;", "|touch X", "&touch X&", ">X", "<X", "a\nb", "a\n\ntouch X\n"),
        *("'", '"', "';touch X;'", '";touch X;"', "\\", "\\\\n", "*", "?", "[a]", "{a,b}"),
        *("~", "~root", "$HOME", "${X}"),
        *("#", "!", "!!", "%s", "%n", "--help", "-rf", "-", ".", "...", "\t", "\r", "\x1b[31m"),
        *("\x7f", "é", "日本", "🐍"),
        *("a;b&&c||d", "$'a'", "a=b", "$((1+1))", "(a)", "\u202ea", "x" * 200, "${IFS}touch${IFS}X"),
        *("\x01", "a'\"`$(touch X)"),
    )
]  # fmt: skip


def test_hostile_file_names_inject_nothing(server: SshServer, tmp_path: Path) -> None:
    assert len(set(HOSTILE)) >= 50
    package = tmp_path / "all.mlpackage"
    package.mkdir()
    with worker(server, known_worker.COMMAND) as one:
        for name in HOSTILE:
            path = tmp_path / name
            path.write_bytes(CONTENT)
            session = one.open("known", path, "known", 1)
            assert np.array_equal(session.infer(IMAGES), known_worker.logits(CONTENT, IMAGES))
            if "\\" not in name:  # asyncssh sends no such name in a folder
                (package / name).write_bytes(name.encode())
        there = Path(one._sent(package))
    inner = {entry.name: entry.read_bytes() for entry in there.iterdir()}
    assert inner == {name: name.encode() for name in HOSTILE if "\\" not in name}
    assert [entry.name for entry in server.home.iterdir()] == [".cache"]
    files = (server.home / ".cache/edge-t2t/files").iterdir()
    assert all(set(entry.stem) <= set("0123456789abcdef") for entry in files)


@pytest.mark.parametrize("option", ["python", "folder"])
def test_hostile_words_of_a_command_stay_words(server: SshServer, option: str) -> None:
    nasty = "x'; touch X; echo '$(touch X)"
    if option == "python":
        options = server.options(python=nasty)
        with pytest.raises(TargetError, match="has no"):
            SshWorker(server.address(), options, print).__enter__()
    else:
        shows = "import sys; sys.stderr.write(repr(sys.argv[1])); sys.exit(4)"
        with worker(server, [sys.executable, "-c", shows, nasty]) as one, pytest.raises(TargetError) as error:
            one.hello()
        assert "touch X; echo" in str(error.value)
    assert [entry.name for entry in server.home.iterdir()] == [".cache"]


def test_facts_and_conditions_are_those_of_the_other_end(server: SshServer) -> None:
    device = SshDevice(server.address(), server.options(), print)
    try:
        first, second = device.conditions(), device.conditions()
        assert first.load_1min is not None
        assert second.load_1min is not None
        assert device._watcher is not None
        os.kill(device._watcher.hello()["pid"], signal.SIGKILL)
        with pytest.raises(TargetError, match="SIGKILL"):
            device.conditions()
        assert device.conditions().load_1min is not None  # a new one
    finally:
        device.close()
    assert device.runtimes("tflite", "all") == ("litert", "tensorflow")


def test_cores_are_bound_and_a_core_that_is_not_there_is_refused(server: SshServer) -> None:
    core = min(os.sched_getaffinity(0))
    with SshWorker(server.address(), server.options(cpus=(core,)), print) as one:
        assert os.sched_getaffinity(one.hello()["pid"]) == {core}
    with pytest.raises(TargetError, match="no core 4096"):
        SshWorker(server.address(), server.options(cpus=(4096,)), print).__enter__()


# What is refused before a worker starts.


def test_an_unknown_host_key_is_refused_with_what_to_do(server: SshServer, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    with pytest.raises(TargetError, match=r"not known \(SHA256:.*run `ssh -p \d+ board@127\.0\.0\.1`") as error:
        SshWorker(server.address(), server.options(known_hosts=empty), print).__enter__()
    assert error.value.stage == "device"
    assert empty.read_text() == ""


def test_a_changed_host_key_is_refused_as_changed(server: SshServer, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {other}")
    with pytest.raises(TargetError, match=r"not the one in .*ssh-keygen -R '\[127\.0\.0\.1\]:\d+'"):
        SshWorker(server.address(), server.options(known_hosts=known), print).__enter__()


def test_a_config_that_turns_the_check_off_does_not(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    config = "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n"
    (tmp_path / ".ssh" / "config").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TargetError, match="is not known"):
        SshWorker(server.address(), server.options(known_hosts=None), print).__enter__()


def test_a_key_that_the_server_does_not_take_is_refused_without_a_prompt(server: SshServer, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "key"))
    with pytest.raises(TargetError, match=r"refused the login .*ssh-copy-id.*passwords are never asked for"):
        SshWorker(server.address(), server.options(identity=tmp_path / "key"), print).__enter__()
    key.write_private_key(str(tmp_path / "locked"), "pkcs8-pem", passphrase="secret")
    with pytest.raises(TargetError, match=r"locked cannot be used .*ssh-add"):
        SshWorker(server.address(), server.options(identity=tmp_path / "locked"), print).__enter__()
    with pytest.raises(TargetError, match="no identity file"):
        SshWorker(server.address(), server.options(identity=tmp_path / "none"), print).__enter__()


def test_a_host_that_is_not_there_and_one_that_says_nothing(server: SshServer) -> None:
    with Proxy(server.port) as proxy:
        proxy.silent = True
        server.know(proxy.port)
        with pytest.raises(TargetError, match="did not answer within 1 s"):
            SshWorker(server.address(proxy.port), server.options(1.0), print).__enter__()
        port = proxy.port
    with pytest.raises(TargetError, match=r"cannot reach ssh:board@127\.0\.0\.1:"):
        SshWorker(server.address(port), server.options(), print).__enter__()
    nowhere = Address("ssh", "no-such-host.invalid", "board")
    with pytest.raises(TargetError, match=r"cannot reach ssh:board@no-such-host\.invalid"):
        SshWorker(nowhere, server.options(), print).__enter__()


def python_that(tmp_path: Path, line: str) -> str:
    """A program that stands for the device's Python."""
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_cannot_is_told_with_what_to_install(server: SshServer, tmp_path: Path) -> None:
    def starts(python: str) -> None:
        SshWorker(server.address(), server.options(python=python), print).__enter__()

    with pytest.raises(TargetError, match=r"has no 'python9'.*pip install numpy ai-edge-litert.*on a Mac.*coremltools"):
        starts("python9")
    old = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (default)'; exec(sys.argv[1])"
    with pytest.raises(TargetError, match=r"is Python 3\.9\.2, and 3\.11 or later is needed.*pip install"):
        starts(python_that(tmp_path, f'exec {sys.executable} -c "{old}" "$2"'))
    with pytest.raises(TargetError, match=r"numpy does not import \(ModuleNotFoundError.*pip install"):
        starts(python_that(tmp_path, f'exec {sys.executable} -S "$@"'))
    with pytest.raises(TargetError, match="ended with status 9 at 'about': out of order"):
        starts(python_that(tmp_path, "echo out of order >&2; exit 9"))
    with pytest.raises(TargetError, match="the worker did not start: no keeper"):
        starts(python_that(tmp_path, f'[ "$1" = -c ] || {{ echo no keeper >&2; exit 1; }}; exec {sys.executable} "$@"'))


def test_what_a_login_shell_prints_is_no_reply(server: SshServer, tmp_path: Path) -> None:
    noisy = python_that(tmp_path, f'echo \'{{"ok": true}}\'; exec {sys.executable} "$@"')
    with SshWorker(server.address(), server.options(python=noisy), print) as one:
        assert one.hello()["pid"]


# What goes wrong while a worker runs: as tests/unit/targets/worker/test_host_worker.py has it, over SSH.


def test_an_abort_is_told_with_its_signal_and_last_words(server: SshServer) -> None:
    command = broken("print('F 0000 check failed', file=sys.stderr, flush=True)\nos.abort()")
    with worker(server, command) as one:
        with pytest.raises(TargetError, match=r"the runtime aborted: signal SIGABRT.*check failed") as error:
            one.hello()
        assert error.value.stage == "probe"
        with pytest.raises(TargetError, match="SIGABRT"):  # later calls say why there is no worker
            one.probe("tflite")


def test_a_worker_that_ends_or_prints_on_the_protocol_is_no_reply(server: SshServer) -> None:
    with worker(server, broken("sys.exit(3)")) as one, pytest.raises(TargetError, match="ended with status 3"):
        one.hello()
    with (
        worker(server, broken("print('INFO: delegate', flush=True)")) as one,
        pytest.raises(TargetError, match="status 0"),
    ):
        one.hello()


@pytest.mark.parametrize("how", ["hangs", "is stopped"])
def test_a_worker_that_does_not_answer_is_killed_with_its_children(server: SshServer, how: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with worker(server, hanging(pids, stopped=how == "is stopped")) as one:
        processes = started(pids)
        one.timeout_s = 0.2
        with pytest.raises(TargetError, match=r"no answer within 0\.2 s"):
            one.hello()
    for pid in processes:
        assert ended(pid)


def test_a_server_that_is_killed_ends_the_worker_too(tmp_path: Path) -> None:
    with SshServer(tmp_path / "ssh") as server, worker(server, known_worker.COMMAND) as one:
        pid = one.hello()["pid"]
        session = one.open("known", artifact(tmp_path), "known", 1)
        session.infer(IMAGES)
        threading.Thread(target=server.kill).start()
        with pytest.raises(TargetError, match="the connection to ssh:board@"):
            [session.infer(IMAGES) for _ in itertools.count()]
        assert ended(pid)
        with pytest.raises(TargetError, match="the connection to ssh:board@"):
            one.open("known", artifact(tmp_path, "other.tflite"), "known", 1)


def test_a_stopped_worker_does_not_outlive_its_server(tmp_path: Path) -> None:
    with SshServer(tmp_path / "ssh") as server, worker(server, known_worker.COMMAND) as one:
        pid = one.hello()["pid"]
        os.kill(pid, signal.SIGSTOP)
        server.kill()
        assert ended(pid)
        with pytest.raises(TargetError):
            one.hello()


def test_a_link_that_drops_in_the_middle_of_a_reply_gives_no_reply(server: SshServer, tmp_path: Path) -> None:
    images = np.zeros((20_000, 1, 1, 1), np.float32)  # a reply of 320 kB
    program = tmp_path / "wide.py"
    program.write_text(
        "import sys, numpy as np\nfrom targets.worker import wire\n"
        "while m := wire.read_message(sys.stdin.buffer):\n"
        "    wire.write_message(sys.stdout.buffer, {'ok': True}, np.zeros((20000, 4), np.float32))\n"
    )
    with Proxy(server.port) as proxy:
        server.know(proxy.port)
        with worker(server, [sys.executable, "-P", str(program)], port=proxy.port) as one:
            assert one._call("infer", images)[1] is not None
            proxy.cut_after(100_000)
            with pytest.raises(TargetError, match="the connection to ssh:board@"):
                one._call("infer", images)


def test_a_slow_or_silent_link_ends_at_the_limit(server: SshServer, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy:
        server.know(proxy.port)
        for fault in ("slow", "silent"):
            proxy.bytes_per_s, proxy.silent = None, False
            with worker(server, known_worker.COMMAND, port=proxy.port) as one:
                session = one.open("known", artifact(tmp_path), "known", 1)
                one.timeout_s = 1.0
                proxy.bytes_per_s, proxy.silent = (2000, False) if fault == "slow" else (None, True)
                with pytest.raises(TargetError, match="no answer within 1 s"):
                    session.infer(np.zeros((20, 3, 32, 32), np.float32))


def test_a_push_that_is_too_slow_says_how_far_it_came(server: SshServer, tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    path.write_bytes(os.urandom(400_000))
    with Proxy(server.port) as proxy:
        server.know(proxy.port)
        with worker(server, known_worker.COMMAND, port=proxy.port) as one:
            assert one._pusher is not None
            one._pusher = replace(one._pusher, limit_s=2.0)
            proxy.bytes_per_s = 50_000
            with pytest.raises(TargetError, match=r"large\.tflite was not there within 2 s, 0\.\d MB of it") as error:
                one.open("known", path, "known", 1)
            assert error.value.stage == "device"
            proxy.bytes_per_s = None


def test_a_full_disk_is_told_before_a_push(server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.tflite"
    path.write_bytes(b"never seen before")
    with worker(server) as one:
        monkeypatch.setattr(push, "SPARE_BYTES", 1 << 60)
        with pytest.raises(TargetError, match=r"the disk of ssh:board@.* is full: b\.tflite needs 0\.0 MB"):
            one.open("known", path, "known", 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_real_small_disk_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SshServer(tmp_path / "ssh")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(server.home)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount a tmpfs")
    try:
        monkeypatch.setattr(push, "SPARE_BYTES", 0)
        (tmp_path / "big.tflite").write_bytes(os.urandom(800_000))
        with server, worker(server, known_worker.COMMAND) as one:
            one.open("known", artifact(tmp_path), "known", 1)
            room = one._pusher
            assert room is not None
            # Asked for, there is room; somebody else takes it before the push does.
            (server.home / "other").write_bytes(os.urandom(100_000))
            (tmp_path / "big2.tflite").write_bytes(os.urandom(700_000))
            one.open("known", tmp_path / "big2.tflite", "known", 1)
            with pytest.raises(TargetError, match="is full: big"):
                one.open("known", tmp_path / "big.tflite", "known", 1)
            assert not list((server.home / ".cache/edge-t2t/files").glob(".part-*"))
    finally:
        subprocess.run(["umount", "-l", str(server.home)], check=True)


def test_a_disk_that_fills_up_during_a_push_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "b.tflite"
    path.write_bytes(os.urandom(600_000))
    with SshServer(tmp_path / "ssh") as server, worker(server, known_worker.COMMAND) as one:
        server.fill_disk(400_000)
        with pytest.raises(TargetError, match=r"b\.tflite could not be written there") as error:
            one.open("known", path, "known", 1)
        assert error.value.stage == "device"
        assert list((server.home / ".cache/edge-t2t/files").iterdir()) == []


def test_a_folder_of_a_keeper_that_was_killed_is_removed_by_the_next(server: SshServer) -> None:
    left = server.home / ".cache/edge-t2t/tmp" / "worker-4194303-x"
    left.mkdir(parents=True, exist_ok=True)
    with worker(server) as one:
        one.hello()
        assert not left.exists()


def test_the_registry_makes_it(server: SshServer) -> None:
    device = device_at(server.address(), DeviceOptions(), print)
    assert isinstance(device, SshDevice)
    assert device.times
