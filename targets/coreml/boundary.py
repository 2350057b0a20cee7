"""What a package gets beside its network: preprocessing in front of it, and a classifier beside its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from targets.coreml.mil import load_model
from targets.coreml.preprocess import Preprocessing
from targets.program import input_shape

if TYPE_CHECKING:
    from torch.export import ExportedProgram

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
