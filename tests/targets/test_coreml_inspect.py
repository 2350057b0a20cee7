"""What a Core ML package holds and what is known to go wrong with it, on packages that are converted or built here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from command_line import main_py
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol, types
from tiny_hybrid import SavedProgram

from pipeline.commands.inspect import show
from pipeline.records.keys import OK
from pipeline.stages.inspection import Inspected
from targets.coreml import encodings as stored
from targets.coreml import neural_engine
from targets.coreml.convert import convert
from targets.coreml.encodings import store_unsigned
from targets.coreml.inspect import inspect, load_operations
from targets.match import match_scales
from targets.program import load_program, trained_quant_params
from targets.types import ConvertRequest, GraphFacts, PackageOptions, Precision, TensorSpec
from targets.worker.host import HostWorker

DOCS = Path(__file__).parents[2] / "docs" / "core-ml-neural-engine.md"
WEIGHTED_LAYERS = 7  # of the tiny hybrid: stem, depthwise, qkv, proj, fc1, fc2, head
Build = Callable[[Any], Any]  # a variable of a MIL program under construction -> its result


@pytest.fixture(scope="module")
def packages(programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny hybrid by precision."""
    folder = tmp_path_factory.mktemp("packages")
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    for precision in precisions:
        program = load_program(programs[precision].path)
        convert(ConvertRequest(program, precision, folder / f"{precision}.mlpackage"))
    return {precision: folder / f"{precision}.mlpackage" for precision in precisions}


def built(
    build: Build,
    shape: tuple[Any, ...] = (1, 8, 8, 8),
    dtype: Any = types.fp16,
    target: Any = ct.target.iOS17,
    **how: Any,
) -> Any:
    """An MLModel of one input, exactly as it was built: no pass of coremltools sees it."""

    @mb.program(input_specs=[mb.TensorSpec(shape, dtype=dtype)], opset_version=target)
    def program(x: Any) -> Any:
        return build(x)

    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
        **how,
    )


def facts_of(model: Any, folder: Path) -> GraphFacts:
    path = folder / "built.mlpackage"
    model.save(str(path))
    return inspect(path)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float16)


def signed(shape: tuple[int, int], lowest: int) -> np.ndarray:
    data = np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8)
    data[0, 0] = lowest
    return data


def affine(x: Any, data: np.ndarray, zero_point: int = 0) -> Any:
    """A linear layer whose weight is in the encoding of the reports."""
    weight = mb.constexpr_affine_dequantize(
        quantized_data=data,
        zero_point=data.dtype.type(zero_point),
        scale=np.linspace(0.01, 0.02, len(data)).astype(np.float16),
        axis=np.int32(0),
        name="encoded",
    )
    return mb.linear(x=x, weight=weight)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "uint8")])
def test_operators_and_weights_are_told_by_dtype(precision: str, dtype: str, packages: dict[str, Path]) -> None:
    facts = inspect(packages[precision])
    assert facts.weights_by_dtype == {dtype: WEIGHTED_LAYERS}
    assert sum(facts.operators_by_dtype.values()) == sum(facts.operators.values())
    assert facts.operators_by_dtype[f"softmax {'fp32' if precision == 'fp32' else 'fp16'}"] == 1
    assert any(name == "quantize int8" for name in facts.operators_by_dtype) == (precision == "int8")


def linear_model(target: Any) -> Any:
    """Two linear layers of 32 x 64, and a product with ones, which is no weight."""
    one = np.ones((1, 32), np.float16)

    def build(x: Any) -> Any:
        y = mb.linear(x=mb.linear(x=x, weight=random(64, 64), name="a"), weight=random(32, 64), name="b")
        return mb.linear(x=y, weight=one, name="sum")

    return built(build, (1, 64), target=target)


def quantized(dtype: str, **how: Any) -> Callable[[Any], Any]:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=dtype, weight_threshold=64, **how)
    return lambda model: cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))


def palettized(bits: int, **how: Any) -> Callable[[Any], Any]:
    config = cto.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=64, **how)
    return lambda model: cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))


def palettized_to_int8(model: Any) -> Any:
    """A palette whose values are int8 with a scale of their own."""
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_tensor", weight_threshold=64)
    return cto.linear_quantize_weights(
        palettized(4)(model), cto.OptimizationConfig(global_config=config), joint_compression=True
    )


@pytest.mark.parametrize(
    ("target", "compress", "name", "int8_weights"),
    [
        (ct.target.iOS17, quantized("int8"), "int8", 2),
        (ct.target.iOS17, quantized("uint8"), "uint8", 2),
        (ct.target.iOS18, quantized("int8"), "int8", 2),
        (ct.target.iOS18, quantized("int4", granularity="per_block", block_size=32), "int4", 0),
        (ct.target.iOS17, palettized(8), "lut8", 0),
        (ct.target.iOS17, palettized(6), "lut6", 0),
        (ct.target.iOS17, palettized(4), "lut4", 0),
        (ct.target.iOS18, palettized(6), "lut6", 0),
        (ct.target.iOS18, palettized(4, granularity="per_grouped_channel", group_size=16), "lut4", 0),
        (ct.target.iOS18, palettized(4, enable_per_channel_scale=True), "lut4", 0),
        (ct.target.iOS18, palettized_to_int8, "lut4", 0),
    ],
)
def test_compressed_weights_are_neither_int8_nor_float(
    target: Any, compress: Callable[[Any], Any], name: str, int8_weights: int, tmp_path: Path
) -> None:
    facts = facts_of(compress(linear_model(target)), tmp_path)
    assert facts.weights_by_dtype == {name: 2}
    assert facts.int8_weights == int8_weights
    assert facts.float_weights == 0


def test_a_pruned_weight_tells_what_is_stored_of_it(tmp_path: Path) -> None:
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=64)
    model = cto.prune_weights(linear_model(ct.target.iOS17), cto.OptimizationConfig(global_config=config))
    assert facts_of(model, tmp_path).weights_by_dtype == {"sparse fp16": 2}


@pytest.mark.parametrize("lowest", [-127, -128])
def test_signed_int8_is_named_with_the_way_around_it(lowest: int, tmp_path: Path) -> None:
    model = built(lambda x: affine(x, signed((16, 8), lowest)), (1, 8))
    (caution,) = facts_of(model, tmp_path).cautions
    assert "encoded" in caution
    assert "2114" in caution
    assert "uint8 with zero point 128" in caution
    assert ("none holds -128" in caution) == (lowest == -127)
    assert ("-128 is in encoded" in caution) == (lowest == -128)


@pytest.mark.parametrize("zero_point", [0, -100, 127])
def test_the_way_around_changes_no_value(zero_point: int, tmp_path: Path) -> None:
    model = built(lambda x: affine(x, signed((16, 8), -128), zero_point), (1, 8))
    model.author = "kept"
    encoded = store_unsigned(model)
    before, after = tmp_path / "before.mlpackage", tmp_path / "after.mlpackage"
    model.save(str(before))
    encoded.save(str(after))
    assert not inspect(after).cautions
    assert inspect(after).weights_by_dtype == {"uint8": 1}
    assert encoded.author == "kept"
    assert inspect(after).operators_by_dtype == inspect(before).operators_by_dtype
    np.testing.assert_array_equal(constants(before)["encoded"], constants(after)["encoded"])


def test_the_way_around_keeps_a_whole_model(
    packages: dict[str, Path], programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    path = tmp_path / "unsigned.mlpackage"
    store_unsigned(ct.models.MLModel(str(packages["int8"]), skip_model_load=True)).save(str(path))
    before, after = inspect(packages["int8"]), inspect(path)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.operators_by_dtype == before.operators_by_dtype
    assert after.size_bytes <= before.size_bytes + 1000, "the signed data is still in the file"
    assert not [caution for caution in after.cautions if "signed" in caution]
    trained = trained_quant_params(load_program(programs["int8"].path))
    assert match_scales(trained, after.quant_params, 1e-3) == match_scales(trained, before.quant_params, 1e-3)
    old, new = constants(packages["int8"]), constants(path)
    assert old.keys() == new.keys()
    for name, value in old.items():
        np.testing.assert_array_equal(value, new[name], err_msg=name)


def constants(path: Path) -> dict[str, np.ndarray]:
    """What the compressed constants of a package decode to, by name."""
    compressed = [op for op in load_operations(path)[1] if op.op_type.startswith("constexpr_")]
    return {op.name: stored.values(op.outputs[0]) for op in compressed}


def test_a_model_without_signed_int8_is_left_alone() -> None:
    model = linear_model(ct.target.iOS17)
    assert store_unsigned(model) is model


def test_pictures_and_labels_are_read_and_kept(programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    options = PackageOptions(image_input=True, mean=(0.5,) * 3, std=(0.5,) * 3, class_labels=tuple("abcde"))
    path, unsigned = tmp_path / "picture.mlpackage", tmp_path / "unsigned.mlpackage"
    convert(ConvertRequest(load_program(programs["int8"].path), "int8", path, options=options))
    store_unsigned(ct.models.MLModel(str(path), skip_model_load=True)).save(str(unsigned))
    before, after = inspect(path), inspect(unsigned)
    assert before.inputs == (TensorSpec("images", (1, 3, 32, 32), "image rgb"),)
    assert {spec.dtype for spec in before.outputs} == {"float32", "string", "dictionary"}
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.weights_by_dtype == {"uint8": WEIGHTED_LAYERS}


def test_float32_is_not_for_the_neural_engine(packages: dict[str, Path]) -> None:
    operators = sum(inspect(packages["fp32"]).operators.values())
    (caution,) = inspect(packages["fp32"]).cautions
    assert caution.startswith(f"Neural Engine, Apple documents: {operators} operators")
    assert "float32" in caution
    assert not inspect(packages["fp16"]).cautions


def test_only_the_operators_in_float32_are_counted(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        wide = mb.exp(x=mb.cast(x=x, dtype="fp32"))
        return mb.relu(x=mb.cast(x=wide, dtype="fp16"))

    (caution,) = facts_of(built(build), tmp_path).cautions
    assert "1 operator (exp ×1) compute in float32" in caution


def lstm(x: Any) -> Any:
    state = np.zeros((1, 4), np.float16)
    weights = {"weight_ih": random(16, 8), "weight_hh": random(16, 4)}
    return mb.lstm(x=x, initial_h=state, initial_c=state, **weights)[0]


FINDINGS: dict[str, tuple[Build, tuple[Any, ...], str]] = {
    "lstm": (lstm, (3, 1, 8), "maintainers say: 1 operator (lstm ×1) are not supported"),
    "scatter": (
        lambda x: mb.scatter(data=x, indices=np.array([1]), updates=random(1, 8), axis=0, mode="add"),
        (4, 8),
        "maintainers say: 1 operator (scatter ×1) fall off it",
    ),
    "dynamic reshape": (
        lambda x: mb.reshape(x=x, shape=mb.shape(x=mb.transpose(x=x, perm=[1, 0]))),
        (4, 8),
        "take their shape while running",
    ),
    "per block": (
        lambda x: mb.linear(
            x=x,
            weight=mb.constexpr_blockwise_shift_scale(
                data=signed((16, 8), -7), scale=np.full((16, 2), 0.1, np.float16)
            ),
        ),
        (1, 8),
        "have one scale for each block",
    ),
    "int8 activations": (
        lambda x: mb.dequantize(
            input=mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8"), scale=np.float16(0.1)
        ),
        (1, 8),
        "(quantize ×1) quantize activations",
    ),
    "gather": (
        lambda x: mb.gather(x=x, indices=np.array([0, 2]), axis=0),
        (4, 8),
        "users report: 1 operator (gather ×1) do not run on it",
    ),
    "topk": (lambda x: mb.topk(x=x, k=2, axis=-1)[0], (4, 8), "users report: 1 operator (topk ×1) ran on the CPU"),
    "gru": (
        lambda x: mb.gru(x=x, initial_h=np.zeros((1, 4), np.float16), weight_ih=random(12, 8), weight_hh=random(12, 4))[
            0
        ],
        (3, 1, 8),
        "users report: 1 operator (gru ×1) do not run on it",
    ),
    "dilated": (
        lambda x: mb.conv(x=x, weight=random(8, 8, 3, 3), dilations=[2, 2]),
        (1, 8, 8, 8),
        "users report: 1 operator (conv ×1) are dilated",
    ),
    "wide pooling": (
        lambda x: mb.avg_pool(x=x, kernel_sizes=[14, 14], strides=[1, 1], pad_type="valid"),
        (1, 8, 16, 16),
        "users report: 1 operator (avg_pool ×1) pool with a kernel above 13",
    ),
    "enlarging": (
        lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=3, scale_factor_width=3),
        (1, 8, 8, 8),
        "users report: 1 operator (upsample_nearest_neighbor ×1) enlarge",
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_what_is_said_of_operators_on_the_neural_engine(name: str, tmp_path: Path) -> None:
    build, shape, said = FINDINGS[name]
    target = ct.target.iOS18 if name == "per block" else ct.target.iOS17
    cautions = facts_of(built(build, shape, target=target), tmp_path).cautions
    assert [caution for caution in cautions if caution.startswith("Neural Engine, ") and said in caution], cautions


def test_a_palette_with_a_scale_for_each_channel_is_named(tmp_path: Path) -> None:
    model = palettized(4, enable_per_channel_scale=True)(linear_model(ct.target.iOS18))
    (caution,) = facts_of(model, tmp_path).cautions
    assert "users report" in caution
    assert "scale a palette by channel" in caution


def test_ordinary_operators_have_nothing_said_of_them(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        y = mb.conv(x=x, weight=random(8, 8, 3, 3), dilations=[1, 1])
        y = mb.avg_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        y = mb.upsample_nearest_neighbor(x=y, scale_factor_height=2, scale_factor_width=2)
        return mb.softmax(x=mb.reshape(x=y, shape=[1, 8, 36]), axis=-1)

    assert facts_of(built(build), tmp_path).cautions == ()


def test_a_range_of_shapes_is_named_and_a_list_of_shapes_is_not(tmp_path: Path) -> None:
    shape = (1, 8, ct.RangeDim(4, 16), 8)
    for name, flexible, expected in (
        ("range", ct.Shape(shape), True),
        ("list", ct.EnumeratedShapes([(1, 8, 8, 8), (1, 8, 16, 8)]), False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        model = built(
            lambda x: mb.relu(x=x),
            (1, 8, get_new_symbol(), 8),
            inputs=[ct.TensorType(name="x", shape=flexible, dtype=np.float16)],
        )
        said = [caution for caution in facts_of(model, folder).cautions if "flexible range" in caution]
        assert bool(said) == expected


SMALLEST = np.float16(6e-8)
LOST: dict[str, tuple[Build, str, str]] = {
    "overflow": (
        lambda x: mb.mul(x=x, y=np.full(8, np.inf, np.float16), name="user"),
        "infinity or NaN",
        "user_y_0",
    ),
    "epsilon of a sum": (
        lambda x: mb.real_div(x=x, y=mb.add(x=x, y=SMALLEST, name="sum")),
        "1 operator with an epsilon",
        "sum",
    ),
    "epsilon of zero": (
        lambda x: mb.rsqrt(x=mb.add(x=x, y=np.float16(0), name="sum"), epsilon=np.float32(1e-12)),
        "1 operator with an epsilon",
        "sum",
    ),
    "epsilon of an operator": (
        lambda x: mb.layer_norm(x=x, axes=[-1], epsilon=np.float16(0), name="norm"),
        "1 operator with an epsilon",
        "norm",
    ),
    "divisor": (
        lambda x: mb.real_div(x=x, y=SMALLEST, name="division"),
        "1 operator with an epsilon",
        "division",
    ),
    "factor": (
        lambda x: mb.mul(x=x, y=SMALLEST, name="product"),
        "1 constant whose values are all too small",
        "product_y_0",
    ),
    "scale of zero": (
        lambda x: mb.quantize(
            input=x, scale=np.array([0] + [1] * 7, np.float16), axis=1, output_dtype="int8", name="q"
        ),
        "scale of 0",
        "q",
    ),
    "coarse scale": (
        lambda x: mb.quantize(input=x, scale=np.float16(3e-5), output_dtype="int8", name="q"),
        "down to 3.0e-05): rounded by up to 0.099%",
        "q",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_constants_that_half_precision_has_no_room_for_are_named(name: str, tmp_path: Path) -> None:
    build, said, constant = LOST[name]
    found = [c for c in facts_of(built(build, (1, 8)), tmp_path).cautions if "half precision" in c]
    assert len(found) == 1
    assert said in found[0]
    assert f"({constant}" in found[0]


def test_a_channel_of_zeros_may_have_a_scale_of_zero(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        scale = np.array([0] + [0.1] * 15, np.float16).reshape(16, 1)
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=signed((16, 8), 5), scale=scale))

    assert facts_of(built(build, (1, 8), target=ct.target.iOS18), tmp_path).cautions == ()


def test_constants_that_fit_into_half_precision_are_not_named(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        y = mb.real_div(x=x, y=mb.add(x=mb.mul(x=x, y=np.zeros(8, np.float16)), y=np.float16(1e-4)))
        y = mb.layer_norm(x=y, axes=[-1], epsilon=np.float16(1e-5))
        return mb.quantize(input=mb.rsqrt(x=y, epsilon=np.float32(1e-12)), scale=np.float16(1e-3), output_dtype="int8")

    assert not [c for c in facts_of(built(build, (1, 8)), tmp_path).cautions if "half precision" in c]


def test_every_source_is_in_the_documentation() -> None:
    page = DOCS.read_text()
    for rule in neural_engine.RULES:
        assert rule.source in page, rule.says
        assert rule.basis in page


@pytest.mark.parametrize("target", ["executorch", "tflite"])
def test_other_formats_tell_dtypes_too(target: str, programs: dict[str, SavedProgram], tmp_path: Path) -> None:
    program = programs["int8"]
    with HostWorker(timeout_s=600) as worker:
        path = tmp_path / "file"
        worker.convert(target, program.path, program.sha256, "int8", path)
        facts = worker.inspect(target, path)
    assert facts.weights_by_dtype == {"int8": facts.int8_weights}
    assert sum(facts.operators_by_dtype.values()) == sum(facts.operators.values())
    assert any(name.endswith(" int8") for name in facts.operators_by_dtype)
    assert any(name.endswith(" fp32") for name in facts.operators_by_dtype)


def test_the_command_prints_json(packages: dict[str, Path]) -> None:
    ended = main_py("inspect", packages["int8"], "--json")
    assert ended.code == 0, ended.err
    (artifact,) = json.loads(ended.out)["artifacts"]
    assert artifact["target"] == "coreml"
    assert artifact["facts"]["weights_by_dtype"] == {"uint8": WEIGHTED_LAYERS}
    assert artifact["facts"]["cautions"] == list(inspect(packages["int8"]).cautions)


def test_the_table_has_every_operator_and_caution(
    packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = inspect(packages["int8"]).stored
    show((Inspected("tiny.mlpackage", "coreml", OK, facts),))
    printed = capsys.readouterr().out
    for operator, count in facts.operators_by_dtype.items():
        assert re.search(rf"^{operator} +{count}\b", printed, re.MULTILINE), operator
    assert printed.count("caution: ") == len(facts.cautions) >= 1


def test_the_command_says_what_is_wrong_with_its_file(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"no flatbuffer")
    ended = main_py("inspect", damaged)
    assert ended.code == 6
    assert "damaged.tflite" in ended.err
    for wrong, said in ((tmp_path / "a.onnx", ".mlpackage"), (tmp_path / "none.pte", "does not exist")):
        ended = main_py("inspect", wrong)
        assert ended.code == 2
        assert said in ended.err
    assert main_py("inspect", damaged, "--run", "x").code == 2
