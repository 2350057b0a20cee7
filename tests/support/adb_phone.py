"""A real adbd and adb server of Debian, in network, mount and process namespaces of their own, as a test's phone.

Nothing of it is Android but adb: getprop, dumpsys and the runtimes' programs are stand-ins that print labelled text.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from tcp_proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "phone"
sys.path.insert(0, str(ROOT))

from targets.devices.address import Address  # noqa: E402
from targets.devices.arm64.setup import DebianUnavailable, unpack  # noqa: E402
from targets.devices.device import DeviceOptions  # noqa: E402
from targets.types import GraphFacts, TensorSpec  # noqa: E402

ADB_DATA = "data/local/tmp/edge-t2t"
GETPROP = """[ro.build.version.release]: [15]
[ro.build.version.sdk]: [35]
[ro.product.cpu.abilist]: [x86_64]
[ro.product.manufacturer]: [Nobody]
[ro.product.model]: [Stand-in, no phone]
[ro.soc.manufacturer]: [Nobody]
[ro.soc.model]: [NONE-1]
"""
AWAKE = {
    "battery": "Current Battery Service state:\n  status: 2\n  level: 80\n  scale: 100\n  temperature: 305\n",
    "thermalservice": "IsStatusOverride: false\nThermal Status: 0\n",
    "power": "Power Manager State:\n  mWakefulness=Awake\n",
    "trust": "User Owner (id=0): (current): trusted=0, deviceLocked=0\n",
}


@cache
def missing() -> str:
    """Why there can be no such phone here; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "adbd in namespaces of its own needs Linux and root"
    if shutil.which("cc") is None:
        return "the stand-ins for runtimes need a C compiler"
    try:
        packages()
    except DebianUnavailable as error:
        return f"adbd of Debian cannot be had here: {error}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Phone(Path(folder)):
                return ""
        except RuntimeError as error:
            return f"namespaces cannot be made here: {error}"


@cache
def packages() -> Path:
    """Unpacked; kept for the next time."""
    cache_root = Path(os.environ.get("EDGE_T2T_TOOLS") or Path.home() / ".cache/edge-t2t/tools")
    folder = cache_root / "adb-trixie"
    if not folder.is_dir():
        cache_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adb-", dir=cache_root) as work:
            root = Path(work, "root")
            unpack(["adb", "adbd"], "trixie", "amd64", root, lambda line: None)
            with contextlib.suppress(OSError):  # another process was faster
                root.rename(folder)
    return folder


class Phone:
    """As a context manager; sets the address of the adb server for this process while it is there.

    Args:
        folder: for this phone alone.
        megabytes: of its disk.
        ports: one adbd listens on each; two are two devices. Not 5554 to 5584, where adb looks for emulators itself.
    """

    def __init__(self, folder: Path, megabytes: int = 64, ports: tuple[int, ...] = (6001,)):
        self.folder = folder
        self._megabytes = megabytes
        self.ports = ports
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[str, str | None] = {}
        self.link: Proxy | None = None

    def __enter__(self) -> Phone:
        for part in ("memory", "root", "socket", "programs"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "socket/ports").write_text("\n".join(map(str, self.ports)) + "\n")
        self.stand_in("getprop", GETPROP)
        self.says(AWAKE)
        self.stand_in("settings", "0\n")
        self.stand_in("logcat", "")
        self._process = subprocess.Popen(
            ["unshare", "-n", "-m", "-p", "-f", "--kill-child", "sh", str(HERE / "start.sh"), str(self.folder),
             str(packages()), str(self._megabytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            self.link = Proxy(self.folder / "socket/adb").__enter__()
            self._before = {name: os.environ.get(name) for name in ("ANDROID_ADB_SERVER_PORT",)}
            os.environ["ANDROID_ADB_SERVER_PORT"] = str(self.link.port)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self.link is not None:
            self.link.__exit__()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()

    def stand_in(self, name: str, prints: str) -> None:
        """A program of the phone that prints that."""
        (self.folder / f"programs/{name}.txt").write_text(prints)
        path = self.folder / f"programs/{name}"
        path.write_text(f"#!/bin/sh\ncat /run/programs/{name}.txt\n")
        path.chmod(0o755)

    def says(self, services: dict[str, str]) -> None:
        """What dumpsys prints of each service."""
        for name, text in services.items():
            (self.folder / f"programs/dumpsys-{name}.txt").write_text(text)
        path = self.folder / "programs/dumpsys"
        path.write_text('#!/bin/sh\ncat "/run/programs/dumpsys-$1.txt"\n')
        path.chmod(0o755)

    def address(self, number: int = 0) -> Address:
        return Address("adb", f"127.0.0.1:{self.ports[number]}")

    def options(self, timeout_s: float = 120.0, cpus: tuple[int, ...] = ()) -> DeviceOptions:
        runner = built_runner()
        return DeviceOptions(timeout_s=timeout_s, cpus=cpus, benchmark_model=runner, executor_runner=runner)

    def fault(self, word: str) -> None:
        """How the next process of a runtime's program misbehaves; an empty word: not at all."""
        path = self.inside(f"{ADB_DATA}/fault")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(word)

    def inside(self, path: str) -> Path:
        """A path of the phone, as this process reaches it."""
        return Path(f"/proc/{self._inner()}/root") / path

    def processes(self, name: str) -> list[int]:
        """Numbers, as this process sees them, of the phone's processes whose command line has `name` in it."""
        found, mine = [], os.readlink(f"/proc/{self._inner()}/ns/pid")
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "ns/pid") == mine:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if name in command:
                        found.append(int(entry.name))
        return found

    def unplug(self) -> None:
        """The daemon is gone from one moment to the next."""
        for pid in self.processes("platform-tools/adbd"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def adb(self, *arguments: str) -> str:
        """One word of the adb server."""
        import adbutils

        assert self.link is not None
        client = adbutils.AdbClient(host="127.0.0.1", port=self.link.port, socket_timeout=10)
        with client.make_connection(timeout=10) as stream:
            stream.send_command(":".join(arguments))
            stream.check_okay()
            return str(stream.read_string_block())

    def connect(self) -> None:
        for port in self.ports:
            self.adb("host", "connect", f"127.0.0.1:{port}")

    def reconnect(self) -> None:
        """Wait until every device answers again."""
        self._wait()

    def _inner(self) -> int:
        """The first process inside, as this process sees it."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def _wait(self) -> None:
        from targets.devices.adb.shell import found

        assert self._process is not None
        end, last = time.monotonic() + 120, ""
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.connect()
                there = found()
                if len(there) == len(self.ports) and not any(one.problem for one in there):
                    return
                last = f"{there}"
            except Exception as error:  # the server is not up yet, and adbutils has many words for it
                last = f"{type(error).__name__}: {error}"
            time.sleep(0.1)
        said = b""
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            said = self._process.stdout.read()
        raise RuntimeError(f"no device within 120 s ({last}) {said.decode(errors='replace')[-300:]}")


def stand_in_facts() -> GraphFacts:
    """Of any file: input and output are those that the stand-in has."""
    return GraphFacts(
        size_bytes=1,
        inputs=(TensorSpec("images", (1, 3, 32, 32), "float32"),),
        outputs=(TensorSpec("logits", (1, 10), "float32"),),
        operators={}, delegated=None, fallback=None, partitions=None, int8_weights=0, float_weights=0,
        float_weight_names=(), quant_params=(),
    )  # fmt: skip


def stand_in_logits(images: np.ndarray, file_bytes: int) -> np.ndarray:
    """What the stand-in computes: [N, 10], sums of every tenth number, and the size of the file."""
    flat = images.reshape(len(images), -1)
    sums = np.zeros((len(images), 10), np.float32)
    for i in range(flat.shape[1]):
        sums[:, i % 10] += flat[:, i]
    return sums + np.float32(file_bytes)


@cache
def built_runner() -> Path:
    """The stand-in, built once for this process."""
    folder = Path(tempfile.mkdtemp(prefix="phone-runner-"))
    subprocess.run(["cc", "-O1", "-static", "-o", str(folder / "runner"), str(HERE / "runner.c")], check=True)
    return folder / "runner"
