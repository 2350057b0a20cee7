"""The runtimes' programs for a phone: which processor they are for, how to call them, and what their output means.

They are LiteRT's benchmark_model and ExecuTorch's executor_runner.

Flags and lines: google-ai-edge/LiteRT, tflite/tools/benchmark (README.md, benchmark_model.cc); pytorch/executorch,
examples/portable/executor_runner/executor_runner.cpp. Both also exist in older versions that print less; what is
needed and not there is an error that shows the last lines.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.types import Samples, TargetError
from targets.worker.host import tail

#: e_machine and class (32 or 64 bit) of the System V ABI -> Android's name (developer.android.com/ndk/guides/abis).
_ABIS = {(183, 2): "arm64-v8a", (40, 1): "armeabi-v7a", (62, 2): "x86_64", (3, 1): "x86"}
# Android's own abilist says what else a system runs; without it a name stands for itself.
_MAGIC = b"\x7fELF"
# Versions before 1.3 do not know --print_output, and gflags ends a program that gets an unknown flag.
_QUIET = ("--print_output=none", "--undefok=print_output")


@dataclass(frozen=True)
class RunnerOutput:
    """What one process of a runner measured.

    Attributes:
        load_ms: of opening the file; None where this version does not tell.
    """

    samples: Samples
    load_ms: float | None


class LiteRT:
    """benchmark_model, with XNNPACK."""

    runtime = "litert"
    option = "--benchmark-model"

    @staticmethod
    def timing(program: str, model: str, shape: Sequence[int], threads: int, runs: int) -> list[str]:
        """One warm-up inference of random input, then exactly `runs` that are measured."""
        return [
            program, f"--graph={model}", f"--num_threads={threads}", f"--num_runs={runs}", "--min_secs=0",
            "--max_secs=86400", "--warmup_runs=1", "--warmup_min_secs=0", "--use_xnnpack=true",
        ]  # fmt: skip

    @staticmethod
    def inference(program: str, model: str, shape: Sequence[int], threads: int, source: str, result: str) -> list[str]:
        """One inference of the raw tensor in the file `source`, the raw output into the file `result`."""
        return [
            program, f"--graph={model}", f"--num_threads={threads}", "--num_runs=1", "--min_secs=0",
            "--warmup_runs=0", "--warmup_min_secs=0", "--use_xnnpack=true", "--input_layer=images",
            f"--input_layer_shape={','.join(map(str, shape))}", f"--input_layer_value_files=images:{source}",
            f"--output_filepath={result}",
        ]  # fmt: skip

    @staticmethod
    def output_file(result: str, number: int) -> str:
        """Where the file of an output is, of which there is one here."""
        return result

    @staticmethod
    def read(text: str, runs: int) -> RunnerOutput:
        """The tool tells the mean of all runs, not each of them.

        Raises:
            TargetError: stage "run", the lines of a whole benchmark of `runs` are not there.
        """
        number = r"([\d.]+(?:e[+-]?\d+)?)"
        summary = re.search(rf"Inference timings in us: Init: {number},.*\bInference \(avg\): {number}\s*$", text, re.M)
        # The last of the two lines of statistics: `count=9 first=...`, or `count=9 curr=...` where all were the same.
        counts = re.findall(r"\bcount=(\d+) (?:first|curr)=", text)
        measured = int(counts[-1]) if counts else 0
        if summary is None or measured != runs:
            raise TargetError("run", f"benchmark_model did not tell of {runs} inferences; its last lines: {tail(text)}")
        mean_us, load_us = float(summary[2]), float(summary[1])
        if mean_us <= 0 or load_us <= 0:
            raise TargetError("run", f"benchmark_model tells of {mean_us:g} us an inference, {load_us:g} us to open")
        return RunnerOutput(Samples([mean_us / 1e3], None, per_sample=runs), load_us / 1e3)


class ExecuTorch:
    """executor_runner, built with the XNNPACK backend."""

    runtime = "executorch"
    option = "--executor-runner"

    @staticmethod
    def timing(program: str, model: str, shape: Sequence[int], threads: int, runs: int) -> list[str]:
        """One process runs `runs` + 1 inferences of ones; the first is the warm-up."""
        return [
            program, f"--model_path={model}", f"--cpu_threads={threads}", f"--num_executions={runs + 1}", *_QUIET,
        ]  # fmt: skip

    @staticmethod
    def inference(program: str, model: str, shape: Sequence[int], threads: int, source: str, result: str) -> list[str]:
        return [
            program, f"--model_path={model}", f"--cpu_threads={threads}", f"--inputs={source}",
            f"--output_file={result}", *_QUIET,
        ]  # fmt: skip

    @staticmethod
    def output_file(result: str, number: int) -> str:
        return f"{result}-{number}.bin"

    @staticmethod
    def read(text: str, runs: int) -> RunnerOutput:
        """Each run where this version prints each ("Iteration 1 of 9: 3.1 ms"), else the mean of all, warm-up too.

        Raises:
            TargetError: stage "run", the lines of a whole benchmark of `runs` and a warm-up are not there.
        """
        number = r"(\d+\.\d+)"
        total = re.search(rf"Model executed successfully (\d+) time\(s\) in {number} ms", text)
        each = re.findall(rf"Iteration (\d+) of (\d+): {number} ms", text)
        loaded = re.search(rf"Model loaded in {number} ms", text)
        if total is None or int(total[1]) != runs + 1:
            raise TargetError(
                "run", f"executor_runner did not tell of {runs + 1} inferences; its last lines: {tail(text)}"
            )
        load_ms = float(loaded[1]) if loaded and float(loaded[1]) > 0 else None
        if each:
            if [(int(i), int(n)) for i, n, _ in each] != [(i + 1, runs + 1) for i in range(runs + 1)]:
                raise TargetError("run", f"executor_runner lost some of {runs + 1} iterations: {tail(text)}")
            samples = Samples([float(ms) for _, _, ms in each][1:], None)
        else:
            samples = Samples([float(total[2]) / (runs + 1)], None, per_sample=runs + 1)
        if not all(ms > 0 for ms in samples.wall_ms):
            raise TargetError("run", f"executor_runner tells of an inference in 0 ms: {tail(text)}")
        return RunnerOutput(samples, load_ms)


Runner = type[LiteRT] | type[ExecuTorch]
#: target -> what runs its files on a phone.
RUNNERS: dict[str, Runner] = {"tflite": LiteRT, "executorch": ExecuTorch}


def abi_of(path: Path) -> str:
    """Android's name of the ABI that the program at `path` is for.

    Raises:
        ValueError: it is no ELF program, or for a processor that Android does not have.
    """
    with path.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != _MAGIC:
        raise ValueError(f"{path} is no program for a phone (no ELF header): give the one built for Android")
    order = {1: "<", 2: ">"}.get(head[5], "<")
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    try:
        return _ABIS[machine, head[4]]
    except KeyError:
        raise ValueError(f"{path} is for ELF machine {machine}, which no Android phone has") from None
