"""Write the descriptions that Xcode shows, and the provenance of a package, into its metadata."""

from __future__ import annotations

import json
from typing import Any

from targets.coreml.package import INPUT, OUTPUT, PREFIX
from targets.coreml.preprocess import Preprocessing, record
from targets.types import ConvertRequest, PackageOptions, Precision
from targets.versions import installed

_PRECISIONS: dict[Precision, str] = {
    "fp32": "float32",
    "fp16": "half precision",
    "int8": "int8 weights and activations, computed in half precision between them",
    "w8": "int8 weights, half precision activations",
    "w4": "int4 weights in groups, half precision activations",
    "lut8": "weights from palettes of 256 values, half precision activations",
    "lut6": "weights from palettes of 64 values, half precision activations",
    "lut4": "weights from palettes of 16 values, half precision activations",
}
# Packages that decide what is in the file.
_TOOLS = ("edge-t2t", "coremltools", "torch")


def describe(model: Any, request: ConvertRequest) -> None:
    """Fill in author, licence, version, the descriptions of model, input and outputs, and `edge_t2t.*` metadata.

    Xcode shows all of them. `request.metadata` may have "model" and "run" among its keys: they are the name in the
    description and the version. Every key goes into the user-defined metadata with the prefix `edge_t2t.`.
    """
    options, facts = request.options, request.metadata
    model.short_description = _summary(request)
    model.author, model.license = options.author, options.license
    model.version = facts.get("run", "")
    model.input_description[INPUT] = _input_description(options)
    for name in model.output_description:
        model.output_description[name] = (
            "One score for each class, before the softmax, in the order of the classes."
            if name == OUTPUT
            else "Class with the highest score."
            if name == model.get_spec().description.predictedFeatureName
            else "Probability of each class: softmax of the scores."
        )
    tools = dict.fromkeys(_TOOLS, "not installed") | installed(*_TOOLS)
    written = {**facts, "precision": request.precision, "tools": json.dumps(tools)}
    if options.class_labels:
        written["classes"] = json.dumps(options.class_labels)
    for key, value in written.items():
        model.user_defined_metadata[f"{PREFIX}{key}"] = value
    if options.image_input:
        for key, value in record(Preprocessing(options.mean, options.std)).items():
            model.user_defined_metadata[key] = value


def _summary(request: ConvertRequest) -> str:
    name = request.metadata.get("model", "")
    return f"{name}: image classifier, {_PRECISIONS[request.precision]}." if name else ""


def _input_description(options: PackageOptions) -> str:
    if options.image_input:
        return f"RGB picture; (pixel / 255 - mean) / std is done inside, mean {options.mean}, std {options.std}."
    if options.mean:
        return f"RGB as [1, 3, H, W] in float32: (pixel / 255 - mean) / std, mean {options.mean}, std {options.std}."
    return "RGB as [1, 3, H, W] in float32, normalised as in training."
