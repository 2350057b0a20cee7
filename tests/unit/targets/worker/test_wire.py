"""The worker's protocol on byte streams: what was sent arrives, what is no message is refused, nothing is guessed."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from targets.codec import from_dict
from targets.types import Capability, GraphFacts, Probe, QuantizedTensor, QuantParams, TensorSpec
from targets.worker.wire import (
    MAX_PAYLOAD_BYTES,
    ProtocolError,
    decode_tensors,
    encode_tensors,
    read_message,
    write_message,
)


def sent(*messages: tuple[dict[str, object], np.ndarray | None]) -> io.BytesIO:
    stream = io.BytesIO()
    for header, array in messages:
        write_message(stream, header, array)
    stream.seek(0)
    return stream


ARRAYS = arrays(
    st.sampled_from([np.float32, np.float16, np.int8, np.int64]), array_shapes(min_dims=0, min_side=0, max_side=5)
)


@given(array=ARRAYS, contiguous=st.booleans())
def test_arrays_arrive_as_they_were(array: np.ndarray, contiguous: bool) -> None:
    array = array if contiguous or not array.ndim else array.T[::-1]
    answer = read_message(sent(({"op": "infer"}, array)))
    assert answer is not None
    message, received = answer
    assert message["op"] == "infer"
    assert received is not None
    assert (received.dtype, received.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(received, array)


@given(content=st.binary())
def test_bytes_that_nobody_sent_are_refused(content: bytes) -> None:
    stream = io.BytesIO(content)
    try:
        while read_message(stream) is not None:
            pass
    except ProtocolError:
        pass


@given(array=ARRAYS, kept=st.floats(0, 1, exclude_max=True))
def test_a_message_that_breaks_off_is_refused(array: np.ndarray, kept: float) -> None:
    whole = sent(({"op": "infer"}, array)).getvalue()
    start = whole[: int(kept * len(whole))]
    if not start:
        assert read_message(io.BytesIO(start)) is None
        return
    with pytest.raises(ProtocolError, match="ended"):
        read_message(io.BytesIO(start))


def test_messages_follow_each_other_and_end() -> None:
    stream = sent(({"a": 1}, None), ({"b": "é\n"}, np.ones(3)), ({"c": None}, None))
    first, second, third = (read_message(stream) for _ in range(3))
    assert first == ({"a": 1}, None)
    assert second is not None
    assert second[0]["b"] == "é\n"
    assert third == ({"c": None}, None)
    assert read_message(stream) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Segmentation fault\n", "not a JSON line"),
        (b"[1, 2]\n", "a message is a JSON object"),
        (b'{"op": "inf', "ended inside a message"),
        (b'{"payload_bytes": 8, "dtype": "<f4", "shape": [2]}\n1234', "ended after 4 of 8 payload bytes"),
        (b'{"payload_bytes": 7, "dtype": "<f4", "shape": [2]}\n12345678', "7 bytes announced for float32"),
        (b'{"payload_bytes": 8, "dtype": "O", "shape": [1]}\n12345678', "announced for object"),
        (b'{"payload_bytes": 8}\n12345678', "without a usable dtype"),
        (b'{"payload_bytes": -4, "dtype": "<f4", "shape": [-1]}\n', "announced"),
        (b'{"payload_bytes": 4, "dtype": "<i1", "shape": [-1, -4]}\n1234', "announced"),
        (b'{"payload_bytes": 8, "dtype": "<f4", "shape": [99999999999999999999]}\n12345678', "announced"),
        (b'{"payload_bytes": 0, "dtype": "V0", "shape": [2]}\n', "announced"),
    ],
)
def test_what_is_no_message_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        read_message(io.BytesIO(content))


def test_an_absurd_announcement_is_refused_before_memory_is_taken() -> None:
    shape = [MAX_PAYLOAD_BYTES]
    line = json.dumps({"payload_bytes": 4 * MAX_PAYLOAD_BYTES, "dtype": "<f4", "shape": shape}).encode()
    with pytest.raises(ProtocolError, match="announced"):
        read_message(io.BytesIO(line + b"\n"))


def test_facts_and_probes_come_back_equal() -> None:
    facts = GraphFacts(
        size_bytes=10,
        inputs=(TensorSpec("images", (1, 3, 8, 8), "float32"),),
        outputs=(TensorSpec("logits", (1, 2), "int8"),),
        operators={"CONV_2D": 2},
        delegated=None,
        fallback=None,
        partitions=None,
        int8_weights=1,
        float_weights=1,
        float_weight_names=("head",),
        quant_params=(QuantParams((0.1, 1 / 3), (0, -128)),),
    )
    assert from_dict(GraphFacts, json.loads(json.dumps(asdict(facts)))) == facts
    probe = Probe(Capability(True), {"litert": Capability(False, "not installed")}, {"torch": "2.13.0"})
    assert from_dict(Probe, json.loads(json.dumps(asdict(probe)))) == probe


def test_tensors_arrive_with_their_shapes_scales_and_values() -> None:
    tensors = (
        QuantizedTensor("a", 0.5, -3, np.arange(12, dtype=np.int8).reshape(1, 3, 4).transpose(0, 2, 1)),
        QuantizedTensor("b", 0.25, 0, np.zeros((0, 2), np.int8)),
        QuantizedTensor("c", 0.125, 7, np.array([[-128, 127]], np.int8)),
    )
    answer = read_message(sent(encode_tensors(tensors)))
    assert answer is not None
    message, values = answer
    assert values is not None
    received = decode_tensors(message, values)
    assert [(t.name, t.scale, t.zero_point) for t in received] == [("a", 0.5, -3), ("b", 0.25, 0), ("c", 0.125, 7)]
    for mine, theirs in zip(tensors, received, strict=True):
        np.testing.assert_array_equal(mine.values, theirs.values)
    with pytest.raises(ValueError, match="is uint8, not int8"):
        QuantizedTensor("d", 1.0, 0, np.zeros(3, np.uint8))
