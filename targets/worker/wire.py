"""Messages between a worker and its parent: one JSON line, and after it the raw bytes of at most one array."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from targets.types import QuantizedTensor, Stage

if TYPE_CHECKING:
    import numpy as np

# A batch of 64 float32 images of 3 x 384 x 384 is 113 MB; more than this is a broken announcement.
MAX_PAYLOAD_BYTES = 1 << 30
# GraphFacts of a large model with per-channel scales are a few hundred kB.
MAX_LINE_BYTES = 1 << 26

Message = dict[str, Any]
#: What a worker can be asked for, each a method of targets.worker.worker.Worker -> the stage that an unexpected error
#: of it, or a crash while it is done, belongs to.
OPERATIONS: dict[str, Stage] = {
    "hello": "probe", "facts": "device", "conditions": "device", "bind": "device", "probe": "probe",
    "convert": "convert", "inspect": "inspect", "plan": "load", "open": "load", "infer": "run", "time": "run",
    "peak_bytes": "run", "range_events": "run", "quantized_tensors": "run", "close": "run",
}  # fmt: skip


class ProtocolError(ValueError):
    """Bytes on the stream that are no message."""


def write_message(stream: BinaryIO, header: Mapping[str, Any], array: np.ndarray | None = None) -> None:
    """Write `header` and, announced in it, the bytes of `array` (C order, little-endian as the machine has them)."""
    message = dict(header)
    payload = b""
    if array is not None:
        payload = array.tobytes()  # in C order, whatever the array's own
        message |= {"payload_bytes": len(payload), "dtype": array.dtype.str, "shape": list(array.shape)}
    stream.write(json.dumps(message).encode() + b"\n" + payload)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[Message, np.ndarray | None] | None:
    """The next message, or None at the end of the stream.

    Raises:
        ProtocolError: the bytes are no message, or the stream ends inside one.
    """
    line = stream.readline(MAX_LINE_BYTES)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise ProtocolError(f"the stream ended inside a message of {len(line)} bytes")
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"not a JSON line: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a JSON object, not {line[:80]!r}")
    size = message.get("payload_bytes")
    return message, None if size is None else _read_payload(stream, message, size)


def _read_payload(stream: BinaryIO, message: Message, size: int) -> np.ndarray:
    import numpy as np

    try:
        dtype, shape = np.dtype(message["dtype"]), tuple(int(n) for n in message["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a payload without a usable dtype and shape: {error}") from error
    usable = dtype.itemsize > 0 and not dtype.hasobject and all(n >= 0 for n in shape)
    if not usable or size != dtype.itemsize * math.prod(shape) or size > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"a payload of {size} bytes announced for {dtype} {shape}")
    payload = bytearray()
    while len(payload) < size:
        part = stream.read(size - len(payload))
        if not part:
            raise ProtocolError(f"the stream ended after {len(payload)} of {size} payload bytes")
        payload += part
    return np.frombuffer(payload, dtype=dtype).reshape(shape)


def encode_tensors(tensors: Sequence[QuantizedTensor]) -> tuple[Message, np.ndarray]:
    """The values of all tensors as one array, and what they are."""
    import numpy as np

    entries = [
        {"name": t.name, "scale": t.scale, "zero_point": t.zero_point, "shape": list(t.values.shape)} for t in tensors
    ]
    flat = [np.ascontiguousarray(t.values).reshape(-1) for t in tensors]
    return {"tensors": entries}, np.concatenate(flat) if flat else np.zeros(0, np.int8)


def decode_tensors(message: Mapping[str, Any], values: np.ndarray) -> tuple[QuantizedTensor, ...]:
    found, start = [], 0
    for entry in message["tensors"]:
        size = math.prod(entry["shape"])
        array = values[start : start + size].reshape(entry["shape"])
        found.append(QuantizedTensor(entry["name"], float(entry["scale"]), int(entry["zero_point"]), array))
        start += size
    return tuple(found)
