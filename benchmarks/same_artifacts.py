"""Compare what two runs made: equal files, apart from what a file says about its origin.

`python benchmarks/same_artifacts.py RUN_BEFORE RUN_AFTER` prints a digest for each artifact, program, weights file and
logits file of the first run, and whether the second run has the same. Left out are run ids, digests of the program and
tool versions, which each format keeps in metadata of its own. It exits with 1 if anything differs. For a change of the
code that must not change results: run the same commands with the same seed before and after.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from targets.sdk import quiet_sdks  # noqa: E402

quiet_sdks()

import numpy as np  # noqa: E402

from pipeline.run.layout import ARTIFACT_LOGITS, ARTIFACTS, CHECKPOINT  # noqa: E402


def tflite(path: Path) -> bytes:
    """The model without the contents of its metadata buffers."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    for entry in model.metadata or []:
        model.buffers[entry.buffer].data = None
    model.metadata = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def package(path: Path) -> bytes:
    """The specification without its metadata, and the weights. The manifest has random identifiers."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString(next(path.rglob("model.mlmodel")).read_bytes())
    model.description.metadata.Clear()
    weights = b"".join(file.read_bytes() for file in sorted(path.rglob("*.bin")))
    return model.SerializeToString(deterministic=True) + weights


def program(path: Path) -> bytes:
    """The graph as text, parameters and constants; not the stack traces, which name source files."""
    from targets.program import load_program

    exported = load_program(path)
    tensors = {**exported.state_dict, **{k: v for k, v in exported.constants.items() if hasattr(v, "numpy")}}
    return str(exported.graph).encode() + _arrays({name: t.detach().numpy() for name, t in tensors.items()})


def weights(path: Path) -> bytes:
    from safetensors.numpy import load_file

    return _arrays(load_file(path))


def logits(path: Path) -> bytes:
    """Every array but the digests of what computed them."""
    with np.load(path) as arrays:
        return _arrays({name: arrays[name] for name in arrays.files if arrays[name].dtype.kind in "iuf"})


CONTENTS: dict[str, Callable[[Path], bytes]] = {
    ".pte": Path.read_bytes,
    ".tflite": tflite,
    ".mlpackage": package,
    ".pt2": program,
    ".safetensors": weights,
    ".npz": logits,
}


def _arrays(arrays: dict[str, np.ndarray]) -> bytes:
    return b"".join(name.encode() + np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))


def main(before: Path, after: Path) -> int:
    differing = 0
    for folder in (ARTIFACTS, CHECKPOINT, ARTIFACT_LOGITS):
        for path in sorted((before / folder).iterdir()) if (before / folder).is_dir() else ():
            if path.suffix not in CONTENTS:
                continue
            other = after / path.relative_to(before)
            digests = [
                hashlib.sha256(CONTENTS[path.suffix](p)).hexdigest() if p.exists() else "missing" for p in (path, other)
            ]
            differing += digests[0] != digests[1]
            print("same  " if digests[0] == digests[1] else "DIFFER", path.relative_to(before), *dict.fromkeys(digests))
    print(f"{differing} files differ" if differing else "all files are the same")
    return int(bool(differing))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/same_artifacts.py RUN_BEFORE RUN_AFTER")
    sys.exit(main(*map(Path, sys.argv[1:])))
