"""An MLModel with the outputs logits and probabilities and class labels in, a classifier beside its logits out."""

from __future__ import annotations

from typing import Any

from targets.coreml.mil import load_model

#: The output with the label of the highest score; coremltools calls the other one `<this>_probs`.
LABEL = "classLabel"
#: What the dictionary is made of: an output before, and none after.
PROBABILITIES = "probabilities"


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
