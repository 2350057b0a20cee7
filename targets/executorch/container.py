"""Take a `.pte` file apart: its program, the segments after it, and what runs outside of delegates.

The program is a flatbuffer. `flatc`, which ships in ExecuTorch's wheel, verifies it and turns it into JSON. Large
constants and the delegates' payloads live outside of it, in segments after the program.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from targets.quieted import typed_line
from targets.types import QuantParams, TensorSpec

Json = dict[str, Any]

#: What a damaged flatbuffer, or one of another schema, makes of indices, names and sizes.
DAMAGE = (ValueError, LookupError, TypeError, StopIteration, struct.error, subprocess.CalledProcessError)

# Kernels outside of delegates that hold weights, and the position of the weight among their arguments.
_KERNEL_WEIGHTS = {
    "aten::convolution": 1,
    "aten::linear": 1,
    "aten::addmm": 2,
    "aten::mm": 1,
    "aten::bmm": 1,
}
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "CHAR": "int8"}


@dataclass(frozen=True)
class Container:
    """The parsed program and the bytes of its segments."""

    program: Json
    segments: tuple[bytes, ...]

    @property
    def plan(self) -> Json:
        plan: Json = self.program["execution_plan"][0]
        return plan

    def named_data(self, key: str) -> bytes:
        index = next(entry["segment_index"] for entry in self.program["named_data"] if entry["key"] == key)
        return self.segments[index]

    def payload(self, delegate: Json, backend: str) -> bytes:
        """What the delegate's backend gets.

        Raises:
            ValueError: the delegate is another backend's.
        """
        if delegate["id"] != backend:
            raise ValueError(f"it has a delegate for {delegate['id']}, of which only {backend} can be read")
        processed = delegate["processed"]
        if processed["location"] == "SEGMENT":
            return self.segments[processed["index"]]
        return bytes(self.program["backend_delegate_data"][processed["index"]]["data"])


@dataclass
class Tally:
    """What is counted while walking through kernels and delegates."""

    fallback: Counter[str] = field(default_factory=Counter)
    int8_weights: int = 0
    float_weight_names: tuple[str, ...] = ()
    quant_params: tuple[QuantParams, ...] = ()

    def add_weight(self, name: str, is_int8: bool) -> None:
        if is_int8:
            self.int8_weights += 1
        else:
            self.float_weight_names += (name,)


def read_container(data: bytes) -> Container:
    """
    Raises:
        one of DAMAGE: the file is damaged or foreign.
    """
    from executorch.exir._serialize._flatbuffer import _program_flatbuffer_to_json
    from executorch.exir._serialize._program import _get_extended_header

    if data[4:6] != b"ET":
        raise ValueError(f"it starts with {data[:8]!r}")
    header = _get_extended_header(data)
    if header is None or not header.is_valid():
        raise ValueError("its header is missing")
    end = header.segment_base_offset + header.segment_data_size
    if len(data) < end:
        raise ValueError(f"it has {len(data)} bytes and announces {end}")
    program = json.loads(_program_flatbuffer_to_json(data[: header.program_size]))
    body = data[header.segment_base_offset :]
    return Container(program, tuple(body[s["offset"] : s["offset"] + s["size"]] for s in program["segments"]))


def tally_kernels(plan: Json) -> Tally:
    """The kernels that run outside of any delegate, their weights and scales."""
    tally = Tally()
    for chain in plan["chains"]:
        for instruction in chain["instructions"]:
            if instruction["instr_args_type"] == "KernelCall":
                _tally_kernel(plan, instruction["instr_args"], tally)
    return tally


def _tally_kernel(plan: Json, call: Json, tally: Tally) -> None:
    name: str = plan["operators"][call["op_index"]]["name"]
    tally.fallback[name] += 1
    values = plan["values"]
    if name in _KERNEL_WEIGHTS:
        weight = values[call["args"][_KERNEL_WEIGHTS[name]]]["val"]
        if weight["data_buffer_idx"] > 0 and "allocation_info" not in weight:
            tally.add_weight(f"{name} {weight['sizes']}", weight["scalar_type"] == "CHAR")
    elif name == "quantized_decomposed::quantize_per_tensor":
        scale, zero_point = (values[argument]["val"] for argument in call["args"][1:3])
        tally.quant_params += (QuantParams((float(scale["double_val"]),), (int(zero_point["int_val"]),)),)


def boundary(plan: Json, side: str) -> tuple[TensorSpec, ...]:
    """The program's inputs or outputs; `side` is "input" or "output"."""
    tensors = (plan["values"][index]["val"] for index in plan[f"{side}s"])
    return tuple(TensorSpec(side, tuple(t["sizes"]), _DTYPES[t["scalar_type"]]) for t in tensors)


def reason(error: Exception) -> str:
    """Why a file could not be read, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        return "flatc refuses it"
    return typed_line(error, 200)
