"""Which artifacts `convert` makes for the targets, precisions and options asked for."""

from __future__ import annotations

import pytest

from pipeline.commands.options import precisions_of
from pipeline.config import Wishes
from pipeline.errors import UsageError
from pipeline.records.keys import ArtifactKey
from pipeline.stages.convert import check_wishes, plan_cells
from targets import registry


def test_int8_comes_from_the_trained_program_and_the_rest_from_the_float_one() -> None:
    cells = plan_cells(["tflite"], ["fp32", "fp16", "int8"], from_float=False, say=pytest.fail)
    assert cells == [
        ArtifactKey("tflite", "fp32", "float"),
        ArtifactKey("tflite", "fp16", "float"),
        ArtifactKey("tflite", "int8", "qat"),
    ]
    assert plan_cells(["coreml"], ["int8"], from_float=True, say=pytest.fail) == [ArtifactKey("coreml", "int8", "ptq")]


def test_a_precision_that_one_target_lacks_is_told_and_the_others_go_on() -> None:
    said: list[str] = []
    cells = plan_cells(registry.names(), ["fp16"], from_float=False, say=said.append)
    assert [c.target for c in cells] == ["coreml", "tflite"]
    (line,) = said
    assert line.startswith("executorch is not converted in fp16: ")
    assert line.endswith("(all: convert --list-schemes)")


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(UsageError, match="executorch is not converted in fp16: left out of this project"):
        plan_cells(["executorch"], ["fp16"], from_float=False, say=pytest.fail)


def test_a_scheme_is_another_name_of_a_precision() -> None:
    assert precisions_of(None) == ["int8"]
    assert precisions_of(["w8a8", "lut4", "int8"]) == ["int8", "lut4"]


@pytest.mark.parametrize("option", ["--precision", "-p", "--scheme"])
def test_precision_and_scheme_are_one_option(option: str) -> None:
    from pipeline.commands import load

    (parameter,) = (p for p in load("convert").params if option in p.opts)
    assert parameter.name == "precision"


def test_an_unknown_precision_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--precision 'lut5' is not one of fp32, .*w8a8-dynamic\. Did you mean 'lut"):
        precisions_of(["int8", "lut5"])


def test_weight_only_files_come_from_the_float_program_and_other_targets_say_that_they_have_none() -> None:
    said: list[str] = []
    cells = plan_cells(registry.names(), ["w4", "lut6"], from_float=False, say=said.append)
    assert cells == [
        ArtifactKey("coreml", "w4", "float"),
        ArtifactKey("coreml", "lut6", "float"),
        ArtifactKey("tflite", "w4", "float"),
    ]
    assert [line.split(":")[0] for line in said] == [
        "executorch is not converted in w4",
        "executorch is not converted in lut6",
        "tflite is not converted in lut6",
    ]


@pytest.mark.parametrize(
    ("wishes", "targets", "precisions", "says"),
    [
        (Wishes(signed_weights=True), ["tflite"], ["int8"], "--signed-weights belongs to coreml alone"),
        (Wishes(author="me", license="MIT"), ["executorch"], ["fp32"], "--author, --license belong to coreml alone"),
        (Wishes(deployment_target="iOS16"), ["coreml"], ["fp16", "int8"], "int8 needs iOS17 or later"),
        (Wishes(deployment_target="ios17"), ["coreml"], ["int8"], "Did you mean 'iOS17'"),
        (Wishes(float32_operators=("softmax",)), ["coreml"], ["fp32"], "computes in float32 already"),
        (Wishes(signed_weights=True), ["coreml"], ["fp16", "lut4"], "only int8 and w8 files of coreml have int8"),
    ],
)
def test_options_that_no_cell_can_honour_are_refused(
    wishes: Wishes, targets: list[str], precisions: list[str], says: str
) -> None:
    cells = plan_cells(targets, precisions_of(precisions), from_float=False, say=pytest.fail)
    with pytest.raises(UsageError) as caught:
        check_wishes(wishes, cells, pytest.fail)
    assert says in str(caught.value)


def test_options_of_one_target_among_others_are_told() -> None:
    cells = plan_cells(registry.names(), ["int8"], from_float=False, say=pytest.fail)
    said: list[str] = []
    check_wishes(Wishes(tensor_input=True, author="me", float32_operators=("softmax",)), cells, said.append)
    assert said == ["--float32-op, --author belong to coreml, and say nothing to executorch, tflite"]
    check_wishes(Wishes(), cells, pytest.fail)
