"""Standard TFLite metadata of an image classifier: what MediaPipe and the Task Library read of a file.

A flatbuffer of metadata_schema.fbs (tensorflow/tflite-support, version 1.1.0) in the file's entry TFLITE_METADATA, and
the labels as `labels.txt` in a zip archive that is appended to the file. No package here has the schema's classes, so
the few tables are written field by field; the numbers are the fields' positions in it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

ENTRY = "TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
#: Oldest version of the schema with all that is written here.
_PARSER = "1.0.0"
# Members of enumerations and unions.
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS, _RGB = 2, 1, 1, 2, 1


def metadata(
    name: str, version: str, size: tuple[int, int], has_labels: bool, description: str, tensors: tuple[str, str]
) -> bytes:
    """
    Args:
        size: height and width of the image.
        has_labels: whether LABELS is packed into the file.
        description: of the image that goes in.
        tensors: names of input and output.
    """
    import flatbuffers

    b = flatbuffers.Builder(1024)
    height, width = size
    image = _table(b, {0: ("int8", _RGB), 1: _table(b, {0: ("uint32", width), 1: ("uint32", height)})})
    normalization = _table(b, {0: _floats(b, [0.0]), 1: _floats(b, [1.0])})
    unit = _table(b, {0: ("uint8", _NORMALIZATION), 1: normalization})
    taken = _table(
        b,
        {
            0: b.CreateString(tensors[0]),
            1: b.CreateString(description),
            3: _table(b, {0: ("uint8", _IMAGE_PROPERTIES), 1: image}),
            4: _vector(b, [unit]),
            5: _table(b, {0: _floats(b, [255.0]), 1: _floats(b, [0.0])}),
        },
    )
    fields = {
        0: b.CreateString(tensors[1]),
        1: b.CreateString("Probability of each class."),
        3: _table(b, {0: ("uint8", _FEATURE_PROPERTIES), 1: _table(b, {})}),
        5: _table(b, {0: _floats(b, [1.0]), 1: _floats(b, [0.0])}),
    }
    if has_labels:
        labels = _table(
            b,
            {
                0: b.CreateString(LABELS),
                1: b.CreateString("Names of the classes, one a line."),
                2: ("int8", _AXIS_LABELS),
            },
        )
        fields[6] = _vector(b, [labels])
    graph = _table(b, {2: _vector(b, [taken]), 3: _vector(b, [_table(b, fields)])})
    root = _table(
        b,
        {
            0: b.CreateString(name),
            1: b.CreateString("Image classifier: RGB pixels in, a probability for each class out."),
            2: b.CreateString(version),
            3: _vector(b, [graph]),
            7: b.CreateString(_PARSER),
        },
    )
    b.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(b.Output())


def pack_labels(content: bytes, labels: Sequence[str]) -> bytes:
    """The file with LABELS in a zip archive behind it, not compressed: readers map it into memory as it is.

    Raises:
        ValueError: a label with a line break.
    """
    if broken := [label for label in labels if len(label.splitlines()) != 1]:
        raise ValueError(f"class {broken[0]!r} does not fit in one line of {LABELS}: rename it")
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # its default time: equal files from equal input
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{label}\n" for label in labels))
    return file.getvalue()


# Any: a flatbuffers.Builder, which is untyped.
def _table(b: Any, fields: Mapping[int, int | tuple[str, int]]) -> int:
    """A table whose fields are offsets or (type, scalar), by their position in the schema."""
    import flatbuffers

    b.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, int):
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            kind, scalar = value
            flags = {
                "int8": flatbuffers.number_types.Int8Flags,
                "uint8": flatbuffers.number_types.Uint8Flags,
                "uint32": flatbuffers.number_types.Uint32Flags,
            }
            b.PrependSlot(flags[kind], slot, scalar, 0)
    return int(b.EndObject())


def _vector(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _floats(b: Any, values: Sequence[float]) -> int:
    import numpy as np

    return int(b.CreateNumpyVector(np.asarray(values, np.float32)))
