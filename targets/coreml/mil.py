"""An `.mlpackage` in, its protobuf and the main function of its MIL program out, through coremltools' own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_main(path: Path) -> tuple[Any, Any]:
    """The package's Model protobuf, and its main function as PyMIL with the weights file read.

    Raises:
        Exception: whatever coremltools' loader meets in a damaged package.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    return spec, program.functions["main"]
