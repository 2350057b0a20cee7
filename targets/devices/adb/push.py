"""Send a file to a phone, unless the same bytes are there already."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from targets.devices.adb.files import FileLink
from targets.devices.adb.shell import Shell
from targets.devices.device import Say
from targets.types import TargetError

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
        label = f"adb:{self.shell.serial}"
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
            self.say(f"{label}: sending {path.name}, {size / 1e6:.1f} MB")
        aside = f"{ROOT}/.part-{secrets.token_hex(8)}"
        try:
            with path.open("rb") as stream, FileLink(self.shell.serial, self.shell.limit_s) as link:
                link.send(stream, aside, path.name)
            if (arrived := self._digest(aside)) != sha256:
                raise TargetError(
                    "device",
                    f"{label}: {path.name} has sha256 {(arrived or 'none')[:12]} there, not {sha256[:12]}: it was "
                    "changed during the push, or the storage fails",
                )
            if executable:
                self.shell.checked(["chmod", "755", aside], f"making {path.name} executable")
            self.shell.checked(["mv", "-f", aside, goal], f"moving {path.name} into place")
        except TargetError:
            self._drop(aside)
            raise
        return goal

    def _digest(self, path: str) -> str | None:
        ended = self.shell.run(["sha256sum", path])
        found = re.match(r"([0-9a-f]{64})\s", ended.output)
        return found[1] if found and not ended.status else None

    def _drop(self, path: str) -> None:
        try:
            self.shell.run(["rm", "-f", path])
        except TargetError:
            return  # the error that led here says more


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
