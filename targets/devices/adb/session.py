"""Files on a phone as sessions: each request is one process, or one loop of processes, of the runtime's own program."""

from __future__ import annotations

import contextlib
import io
import math
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from targets.devices.adb.files import ROOT, FileLink, Pusher, require_room
from targets.devices.adb.runners import RUNNERS, Runner, RunnerOutput, abi_of
from targets.devices.adb.shell import Ended, Shell, quoted
from targets.devices.device import DeviceOptions, Say
from targets.types import (
    GraphFacts,
    Samples,
    Session,
    Stage,
    TargetError,
    TensorSpec,
    Unavailable,
    check_batch,
    check_threads,
)
from targets.worker.host import HostWorker, tail

if TYPE_CHECKING:
    from collections.abc import Sequence


# Of a request whose link is lost nothing more is waited for than this.
DROP_LIMIT_S = 2.0


def program_of(target: str, options: DeviceOptions) -> Path:
    """The runtime's program for `target` on this machine.

    Raises:
        Unavailable: stage "device", it was not given.
    """
    path = {"tflite": options.benchmark_model, "executorch": options.executor_runner}.get(target)
    if path is None:
        runner = RUNNERS.get(target)
        if runner is None:
            raise Unavailable("device", f"nothing runs files for {target} on a phone behind adb")
        raise Unavailable(
            "device",
            f"give {runner.option}, the program of {runner.runtime} for the phone: docs/devices.md says where from",
        )
    return path


class AdbWorker:
    """Opens files on the phone; a context manager that keeps nothing open."""

    def __init__(self, shell: Shell, options: DeviceOptions, abis: Sequence[str], say: Say):
        self._shell = shell
        self._options = options
        self._abis = tuple(abis)
        self._push = Pusher(shell, say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def open(self, target: str, path: Path, runtime: str, threads: int) -> AdbSession:
        """Push program and file, and run one inference: a file that does not load is told here."""
        if target not in RUNNERS or runtime != RUNNERS[target].runtime:
            raise Unavailable("load", f"files for {target} do not run in {runtime!r} on a phone behind adb")
        check_threads(threads)
        program = program_of(target, self._options)
        try:
            abi = abi_of(program)
        except (ValueError, OSError) as error:
            raise TargetError("device", str(error)) from error
        if abi not in self._abis:
            raise TargetError(
                "device",
                f"{program.name} is for {abi}, and adb:{self._shell.serial} runs "
                f"{', '.join(self._abis) or 'an unknown ABI'}: give {RUNNERS[target].option} the program built for it",
            )
        facts = _inspected(target, path)
        pushed = self._push.push(program, executable=True), self._push.push(path)
        return AdbSession(self._shell, RUNNERS[target], *pushed, path.name, facts, threads, self._options.cpus)


class AdbSession(Session):
    """One file in the runtime's program; images in as the file takes them, the last output out, float32."""

    def __init__(
        self,
        shell: Shell,
        runner: Runner,
        program: str,
        model: str,
        name: str,
        facts: GraphFacts,
        threads: int,
        cpus: Sequence[int],
    ):
        self._shell, self._runner = shell, runner
        self._program, self._model, self._name = program, model, name
        self._threads = threads
        # toybox's taskset takes a hexadecimal mask.
        self._bound = ["taskset", format(sum(1 << cpu for cpu in cpus), "x")] if cpus else []
        if len(facts.inputs) != 1 or not facts.outputs:
            raise TargetError("load", f"{name} has {len(facts.inputs)} inputs and {len(facts.outputs)} outputs")
        self._dtype = facts.inputs[0].dtype
        self._taken = _shape(facts.inputs[0], "float32", "uint8")
        self._given = [_shape(output, "float32") for output in facts.outputs]
        first = self._timed(1, "load")
        self.load_ms = first.load_ms

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """One process with `n` measured inferences; the programs make up their own input, whose values cost nothing."""
        return self._timed(n, "run").samples

    def infer(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self._taken[1:], self._name, is_open=True, dtype=self._dtype)
        images = [image.astype(np.dtype(self._dtype).newbyteorder("<")).tobytes() for image in batch]
        folder = f"{ROOT}/chunk-{secrets.token_hex(8)}"
        require_room(self._shell, "the batch of images", sum(map(len, images)))
        self._shell.checked(["mkdir", folder], f"making {folder}")
        try:
            logits = self._computed(images, folder)
        except BaseException:
            with contextlib.suppress(TargetError):  # what led here says more
                Shell(self._shell.serial, min(self._shell.limit_s, DROP_LIMIT_S)).run(["rm", "-rf", folder])
            raise
        # A link that is lost here is an error too: images must not stay on the phone without a word.
        self._shell.checked(["rm", "-rf", folder], f"removing {folder}")
        return np.concatenate(logits)

    def _computed(self, images: Sequence[bytes], folder: str) -> list[np.ndarray]:
        """The logits of each, through files in `folder` there."""
        with FileLink(self._shell) as link:
            for number, image in enumerate(images):
                link.send(io.BytesIO(image), f"{folder}/{number}.in", f"image {number}")
        self._run_all(folder, len(images))
        with FileLink(self._shell) as link:
            last = len(self._given) - 1
            size_bytes = 4 * math.prod(self._given[last])
            raw = [
                link.fetch(self._runner.output_file(f"{folder}/{number}.out", last), size_bytes, f"output {number}")
                for number in range(len(images))
            ]
        return [np.frombuffer(one, "<f4").reshape(self._given[last]).astype(np.float32) for one in raw]

    def close(self) -> None:
        """Nothing is open."""

    def _timed(self, runs: int, stage: Stage) -> RunnerOutput:
        command = self._runner.timing(self._program, self._model, self._taken, self._threads, runs)
        # With what it wrote into Android's log: ExecuTorch built for Android logs there.
        script = f"{quoted([*self._bound, *command])} & p=$!; wait $p; s=$?"
        ended = self._shell.script(f"{script}; logcat -d -v raw --pid=$p -s ExecuTorch 2>/dev/null; exit $s", stage)
        self._check(ended, stage)
        return self._runner.read(ended.output, runs)

    def _run_all(self, folder: str, count: int) -> None:
        """One loop over all images there; it stops at the first that fails."""
        one = [
            *self._bound,
            *self._runner.inference(
                self._program, self._model, self._taken, self._threads, f"{folder}/N.in", f"{folder}/N.out"
            ),
        ]
        # The folder's name is ours; N stands for the number of the image.
        each = quoted(one).replace(f"{folder}/N.", f'{folder}/"$n".')
        script = (
            f"n=0; while [ $n -lt {count} ]; do {each} > {folder}/log 2>&1 & p=$!; wait $p; s=$?; "
            f'if [ $s -ne 0 ]; then echo "image $n"; tail -n 20 {folder}/log; exit $s; fi; n=$((n + 1)); done; '
            f"echo done $n"
        )
        ended = self._shell.script(script, "run")
        self._check(ended, "run")
        if not re.search(rf"^done {count}$", ended.output, re.M):
            raise TargetError("run", f"{self._name}: not all of {count} images were run: {tail(ended.output)}")

    def _check(self, ended: Ended, stage: Stage) -> None:
        if ended.status:
            aborted = f"aborted there with signal {ended.status - 128}"
            how = aborted if ended.status > 128 else f"ended there with status {ended.status}"
            raise TargetError(stage, f"{self._name}: {self._runner.runtime} {how}: {tail(ended.output)}")


def _shape(spec: TensorSpec, *dtypes: str) -> tuple[int, ...]:
    """Of the input or output of a file, which is of one of these dtypes."""
    if spec.dtype not in dtypes:
        raise TargetError(
            "load", f"{spec.name} is {spec.dtype}: files with a quantized input or output do not run on a phone yet"
        )
    return tuple(int(size) for size in spec.shape)


def _inspected(target: str, path: Path) -> GraphFacts:
    """Read here; once for all processes that open the same file."""
    stat = path.stat()
    return _read(target, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read(target: str, path: Path, mtime_ns: int, size_bytes: int) -> GraphFacts:
    """In a process of its own: readers of foreign files may abort."""
    with HostWorker() as worker:
        return worker.inspect(target, path)
