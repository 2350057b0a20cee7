"""An `.mlpackage` or an MLModel in, its protobuf and its MIL program out, through coremltools' own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_main(path: Path) -> tuple[Any, Any]:
    """The package's Model protobuf, and its main function as PyMIL with the weights file read.

    Raises:
        Exception: whatever coremltools' loader meets in a damaged package.
    """
    import coremltools as ct

    spec, program = load_model(ct.models.MLModel(str(path), skip_model_load=True))
    return spec, program.functions["main"]


def load_model(model: Any) -> tuple[Any, Any]:
    """The Model protobuf of an MLModel, and its program as PyMIL."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    return spec, load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
