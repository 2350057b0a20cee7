"""Convert an exported program to a sealed `.mlpackage` (mlprogram) with the options that the user asked for.

fp16 and int8 files and those with compressed weights compute in half precision, as the Neural Engine does. The deploy
form of a T2T-ViT is made for that. In its official form, what leads from the Performer's projections through its
exponentials to the division stays float32 (targets.coreml.half_precision), which the Neural Engine does not run.

What a package gets beside its network: preprocessing in front of it, and a classifier beside its logits.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from targets.coreml.compress import compress
from targets.coreml.encodings import store_unsigned
from targets.coreml.half_precision import half_precision
from targets.coreml.mil import load_model
from targets.coreml.package import INPUT, OUTPUT, PREFIX, Preprocessing, record, seal
from targets.coreml.schemes import SCHEMES, SIGNED, problem, target_name
from targets.program import check_labels, check_request, decomposed, fold_quantized_weights, input_shape, static_batch
from targets.sdk import installed, one_line, quieted, why_not_imported
from targets.types import WEIGHT_ONLY, ConvertRequest, PackageOptions, Precision, TargetError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


#: coremltools writes it for ExecuTorch's debugger (models/model.py) where every operator came from an exported program;
#: Core ML does not read it.
_DEBUG_MAP = "executorch_debug_handle_mapping.json"


def unavailable_reason() -> str:
    """Why nothing can be converted here; empty where it can."""
    return why_not_imported("coremltools", "coremltools", "coremltools")


def convert(request: ConvertRequest) -> None:
    """Write the package `request.output`, with `request.metadata` and a seal over its content in it.

    Raises:
        Unavailable: no coremltools here.
        TargetError: stage "convert"; coremltools names the operator that it does not know, and options that do not fit
            the program or the precision are named.
    """
    check_request(request, SCHEMES, unavailable_reason)
    if reason := problem(request.precision, request.options.deployment_target):
        raise TargetError("convert", reason)
    labels = request.options.class_labels
    check_labels(request)
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise TargetError(
            "convert", f"class labels occur twice ({', '.join(repeated[:5])}): a dictionary needs names of their own"
        )
    model = _lower(request.program, request.precision, request.options)
    with quieted():
        if request.precision in WEIGHT_ONLY:
            model = compress(model, request.precision, request.options.group_size)
        if request.precision in SIGNED and not request.options.signed_weights:
            model = store_unsigned(model)
        if labels:
            model = add_classifier(model, labels, _system(request.precision, request.options))
        describe(model, request)
        if request.output.exists():
            shutil.rmtree(request.output)
        model.save(str(request.output))
    (request.output / _DEBUG_MAP).unlink(missing_ok=True)
    seal(request.output)


def _lower(program: ExportedProgram, precision: Precision, options: PackageOptions) -> Any:
    """The coremltools MLModel of a program for one image, which no runtime has loaded.

    Its weights are not yet compressed, and with class labels it has a second output, their probabilities.

    Raises:
        TargetError: stage "convert".
    """
    preprocessing = Preprocessing(options.mean, options.std) if options.image_input else None
    with quieted():
        import coremltools as ct

        single = (fold_quantized_weights if precision == "int8" else static_batch)(program)
        if preprocessing or options.class_labels:
            single = wrap(single, preprocessing, probabilities=bool(options.class_labels))
        shape = (1, *input_shape(program))
        taken = (
            ct.ImageType(name=INPUT, shape=shape, color_layout=ct.colorlayout.RGB)
            if preprocessing
            else ct.TensorType(name=INPUT, shape=shape, dtype=np.float32)
        )
        outputs = (OUTPUT, PROBABILITIES) if options.class_labels else (OUTPUT,)
        try:
            return ct.convert(
                decomposed(single),
                convert_to="mlprogram",
                inputs=[taken],
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in outputs],
                minimum_deployment_target=_system(precision, options),
                compute_precision=ct.precision.FLOAT32
                if precision == "fp32"
                else ct.transform.FP16ComputePrecision(op_selector=half_precision(options.float32_operators)),
                skip_model_load=True,
            )
        except TargetError:
            raise
        except Exception as error:  # the SDK raises what its passes meet; one cell of the matrix may fail alone
            raise TargetError("convert", f"coremltools: {type(error).__name__}: {one_line(error, 400)}") from error


# Any: coremltools is untyped.
def _system(precision: Precision, options: PackageOptions) -> Any:
    import coremltools as ct

    return ct.target[target_name(precision, options.deployment_target)]


#: The output with the label of the highest score; coremltools calls the other one `<this>_probs`.
LABEL = "classLabel"
#: What the dictionary is made of: an output before, and none after.
PROBABILITIES = "probabilities"


def wrap(program: ExportedProgram, preprocessing: Preprocessing | None, probabilities: bool) -> ExportedProgram:
    """Images [1, 3, H, W] -> logits [1, classes], around the program as it is: its quantize operators and scales stay.

    Args:
        program: of a single image, as targets.program.static_batch and fold_quantized_weights make it.
        preprocessing: if given, the new program takes pixels of 0..255.
        probabilities: if set, it gives (logits, softmax of the logits).
    """
    import torch
    from torch import Tensor, nn

    class Wrapped(nn.Module):
        whole: Tensor
        rest: Tensor
        factor: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()
            terms = preprocessing.terms() if preprocessing else ()
            for name, values in zip(("whole", "rest", "factor"), terms, strict=False):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            if preprocessing is not None:
                images = ((images - self.whole) - self.rest) * self.factor
            logits = self.program(images)
            return (logits, torch.softmax(logits, dim=-1)) if probabilities else logits

    shape = input_shape(program)
    if preprocessing is not None and len(preprocessing.mean) != shape[0]:
        raise ValueError(f"a mean of {len(preprocessing.mean)} channels for images of {shape[0]}")
    with torch.no_grad():
        return torch.export.export(Wrapped(), (torch.zeros(1, *shape),))


def add_classifier(model: Any, labels: tuple[str, ...], target: Any) -> Any:
    """The model with a label and a dictionary of probabilities in place of its probabilities; logits and input stay.

    The last step, on a program that no pass is run on after it. ct.convert with a classifier_config gives up on logits
    beside a classifier's outputs, because it counts the outputs asked for against those with the classifier's; a
    program that comes as MIL has no such list. And its writer loses the labels of a classifier that a pass of
    coremltools.optimize moved away from the end.

    Args:
        target: member of coremltools.target.
    """
    import coremltools as ct

    before, program = load_model(model)
    classifier = ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=target,
        classifier_config=ct.ClassifierConfig(
            list(labels), predicted_feature_name=LABEL, predicted_probabilities_output=PROBABILITIES
        ),
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    # A MIL program knows tensors alone: that the input is a picture stands in the description.
    spec = classifier.get_spec()
    del spec.description.input[:]
    spec.description.input.extend(before.description.input)
    return ct.models.MLModel(spec, weights_dir=classifier.weights_dir, skip_model_load=True)


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
    if options.crop_pct is not None:
        written["crop_pct"] = json.dumps(options.crop_pct)
    if options.interpolation:
        written["interpolation"] = options.interpolation
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
