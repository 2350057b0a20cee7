"""Run a `.pte` file in ExecuTorch's own Python runtime."""

from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.sdk import one_line
from targets.types import Samples, Session, Stopwatch, TargetError, Unavailable, check_batch, check_threads

if TYPE_CHECKING:
    import torch

RUNTIME = "executorch"
BACKEND = "XnnpackBackend"

#: executorch::aten::ScalarType of an input (runtime/core/portable_type/scalar_type.h); others are float32.
_DTYPES = {0: "uint8"}

# The thread pool is one for the process, and sessions hold pointers into it.
_open_sessions: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()


def unavailable_reason(backend: str = BACKEND) -> str:
    """Why the runtime cannot be used here with a delegate's backend; empty where it can."""
    try:
        import executorch.kernels.quantized  # noqa: F401  quantize and dequantize outside the delegate
        from executorch.runtime import Runtime
    except (ImportError, OSError) as error:  # OSError: the shared library does not load
        return f"executorch.runtime does not import ({error}): pip install executorch"
    if not Runtime.get().backend_registry.is_available(backend):
        return f"this build of ExecuTorch has no {backend}: install the wheel from PyPI"
    return ""


def load(path: Path, runtime: str, threads: int) -> ExecuTorchSession:
    """Open the file and set up its `forward` method for `threads` threads.

    Raises:
        Unavailable: not this runtime, or not here.
        TargetError: stage "load", the runtime refuses the file.
    """
    if runtime != RUNTIME:
        raise Unavailable("load", f"the executorch target has no runtime {runtime!r} (known: {RUNTIME})")
    if reason := unavailable_reason():
        raise Unavailable("load", reason)
    return open_session(path, threads)


def open_session(path: Path, threads: int, own_threads: bool = True) -> ExecuTorchSession:
    """The part of `load` that is the same for every delegate.

    Args:
        own_threads: whether the delegate computes on threads of this process, whose processor time can be counted.

    Raises:
        TargetError: stage "load", the runtime refuses the file.
    """
    if not path.is_file():
        raise TargetError("load", f"{path} does not exist: convert the model first")

    from executorch.runtime import Runtime, Verification

    _fix_threads(threads)
    start_ns = time.perf_counter_ns()
    try:
        # From the file, not from bytes: a buffer that Python frees makes the runtime fail with error 0x23.
        # InternalConsistency refuses corrupt files on which Minimal crashes.
        program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        method = program.load_method("forward")
    except (RuntimeError, KeyError) as error:
        raise TargetError("load", f"ExecuTorch refuses {path.name}: {one_line(error)}") from error
    load_ms = (time.perf_counter_ns() - start_ns) / 1e6
    session = ExecuTorchSession(program, method, path.name, load_ms, own_threads)
    _open_sessions.add(session)
    return session


def _fix_threads(threads: int) -> None:
    """Give ExecuTorch's thread pool, and torch's own, exactly `threads` threads.

    The Python runtime has no public setting; the pool is rebuilt, which is safe only while no session uses it.
    """
    import torch
    from executorch.extension.pybindings import portable_lib

    check_threads(threads)
    torch.set_num_threads(threads)
    if (now := portable_lib._threadpool_get_thread_count()) == threads:
        return
    if len(_open_sessions):
        raise TargetError(
            "load", f"a session on {now} threads is open in this process: open the one on {threads} in another worker"
        )
    portable_lib._unsafe_reset_threadpool(threads)
    if (now := portable_lib._threadpool_get_thread_count()) != threads:
        raise TargetError("load", f"ExecuTorch's thread pool has {now} threads, not the {threads} asked for")


class ExecuTorchSession(Session):
    """A loaded method `forward`, one image -> [1, classes]; the last output is the logits."""

    # Any: executorch.runtime.Program and Method, untyped.
    def __init__(self, program: Any, method: Any, name: str, load_ms: float, own_threads: bool):
        self.load_ms = load_ms
        self._program = program  # owns the memory of the method
        self._method = method
        self._name = name
        self._own_threads = own_threads
        taken = method.metadata.input_tensor_meta(0)
        self._shape = tuple(taken.sizes())
        self._dtype = _DTYPES.get(taken.dtype(), "float32")

    def infer(self, batch: np.ndarray) -> np.ndarray:
        import torch

        outputs = []
        for image in self._images(batch):
            try:
                *_, logits = self._method.execute([image])
            except RuntimeError as error:
                raise TargetError("run", f"{self._name}: {one_line(error)}") from error
            outputs.append(logits)
        return torch.cat(outputs).float().numpy()

    def samples(self, batch: np.ndarray, n: int) -> Samples:
        """Setting the input and copying the output are outside the measured interval."""
        images = self._images(batch)
        call = self._method._method  # the binding that separates set_inputs, execute and get_outputs
        watch = Stopwatch()
        try:
            for i in range(n):
                call.set_inputs([images[i % len(images)]])
                watch.run(call.execute)
        except RuntimeError as error:
            raise TargetError("run", f"{self._name}: {one_line(error)}") from error
        return watch.samples if self._own_threads else Samples(watch.samples.wall_ms, None)

    def close(self) -> None:
        self._method = self._program = None
        _open_sessions.discard(self)

    def _images(self, batch: np.ndarray) -> tuple[torch.Tensor, ...]:
        """[N, ...] -> N tensors of [1, ...]."""
        import torch

        check_batch(batch, self._shape[1:], self._name, is_open=self._method is not None, dtype=self._dtype)
        return torch.from_numpy(np.ascontiguousarray(batch)).split(1)
