"""What `convert` may be asked of a Core ML package beyond its precision: real conversions, read back from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hybrid import CLASSES, INPUT_SIZE, SavedProgram

from targets.coreml import schemes as deployment
from targets.coreml.compress import palette
from targets.coreml.convert import wrap
from targets.coreml.interpreter.program import load_program as load_package
from targets.coreml.mil import load_main
from targets.coreml.package import SEAL, Preprocessing, check_seal, record
from targets.coreml.package import read as read_preprocessing
from targets.coreml.target import TARGET as COREML
from targets.match import match_scales
from targets.program import load_program, static_batch, trained_quant_params
from targets.types import WEIGHT_ONLY, ConvertRequest, PackageOptions, Precision, TargetError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = ("ant", "bee", "cat", "dog", "eel")
PICTURE = PackageOptions(image_input=True, mean=MEAN, std=STD)
EVERYTHING = PackageOptions(
    image_input=True, mean=MEAN, std=STD, class_labels=LABELS, author="Example Ltd", license="Apache-2.0"
)

Convert = Callable[[Precision, PackageOptions], Path]


@pytest.fixture(scope="module")
def convert(programs: dict[str, SavedProgram], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """A package with these options, made once."""
    made: dict[tuple[Precision, PackageOptions], Path] = {}

    def package(precision: Precision, options: PackageOptions) -> Path:
        if (precision, options) not in made:
            program = load_program(programs["int8" if precision == "int8" else "fp32"].path)
            output = tmp_path_factory.mktemp("options") / f"{precision}.mlpackage"
            facts = {"model": "tiny", "run": "run-1", "program_sha256": "ab" * 32, "classes": json.dumps(LABELS)}
            COREML.convert(ConvertRequest(program, precision, output, facts, options))
            made[precision, options] = output
        return made[precision, options]

    return package


def operations(path: Path, *types: str) -> list[Any]:
    return [op for op in load_main(path)[1].operations if op.op_type in types or (not types and op.op_type != "const")]


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, 3, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (n, *INPUT_SIZE), dtype=np.uint8)


def normalised(levels: np.ndarray) -> np.ndarray:
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
    return (levels.astype(np.float32) / np.float32(255) - mean) / std


# Preprocessing


def test_the_record_in_the_metadata_is_read_back() -> None:
    known = Preprocessing(MEAN, STD)
    assert read_preprocessing(record(known)) == known
    assert read_preprocessing({"edge_t2t.mean": "[0.5]"}) is None  # takes no image
    for damage in ({"edge_t2t.std": "[0, 1, 1]"}, {"edge_t2t.mean": "nothing"}, {"edge_t2t.input": "sound"}):
        with pytest.raises(ValueError, match="convert again"):
            read_preprocessing({**record(known), **damage})


def test_the_folded_preprocessing_survives_half_precision() -> None:
    levels = np.arange(256)
    for mean, std, *terms in zip(MEAN, STD, *Preprocessing(MEAN, STD).terms(), strict=True):
        exact = (levels / 255 - mean) / std
        whole, rest, factor = (np.float16(term) for term in terms)
        half = ((levels.astype(np.float16) - whole) - rest) * factor
        plain = (levels.astype(np.float16) / np.float16(255) - np.float16(mean)) / np.float16(std)
        # Three roundings of results and two of constants, each of at most 2 ** -11 of the value.
        assert np.abs(half - exact).max() <= 5 * 2**-11 * np.abs(exact).max()
        assert (np.abs(half - exact) <= 6 * 2**-11 * np.abs(exact)).all()
        assert not (np.abs(plain - exact) <= 6 * 2**-11 * np.abs(exact)).all()


def test_the_wrapped_program_computes_what_the_program_does(programs: dict[str, SavedProgram]) -> None:
    program = static_batch(load_program(programs["fp32"].path))
    wrapped = wrap(program, Preprocessing(MEAN, STD), probabilities=True).module()
    levels = pictures(4)
    with torch.no_grad():
        for picture in torch.from_numpy(levels):
            expected = program.module()(torch.from_numpy(normalised(picture[None].numpy())))
            logits, probabilities = wrapped(picture[None].float())
            assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
            assert torch.equal(probabilities, torch.softmax(logits, dim=-1))


# Packages


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_picture_goes_in(precision: Precision, convert: Convert) -> None:
    spec, main = load_main(convert(precision, PICTURE))
    (image,) = spec.description.input
    assert image.name == "images"
    assert image.type.WhichOneof("Type") == "imageType"
    assert (image.type.imageType.height, image.type.imageType.width) == INPUT_SIZE[1:]
    colour = image.type.imageType.colorSpace
    assert type(image.type.imageType).ColorSpace.Name(colour) == "RGB"
    first = [op.op_type for op in main.operations if op.op_type not in ("const", "constexpr_affine_dequantize")][:5]
    assert first == ["cast", "sub", "sub", "mul", "quantize" if precision == "int8" else "conv"]
    assert read_preprocessing(dict(spec.description.metadata.userDefined)) == Preprocessing(MEAN, STD)


def test_the_trained_scales_survive_the_wrapping(programs: dict[str, SavedProgram], convert: Convert) -> None:
    trained = trained_quant_params(load_program(programs["int8"].path))
    target = COREML
    plain, wrapped = (
        match_scales(trained, target.inspect(convert("int8", options)).quant_params, target.scale_rtol)
        for options in (PackageOptions(), EVERYTHING)
    )
    assert wrapped.total >= 14
    assert wrapped.missing == plain.missing == ()


@pytest.mark.parametrize("precision", ["fp32", "int8", "w4", "lut6"])
def test_labels_and_probabilities_stand_beside_the_logits(precision: Precision, convert: Convert) -> None:
    path = convert(precision, EVERYTHING)
    spec, _ = load_main(path)
    kinds = {feature.name: feature.type.WhichOneof("Type") for feature in spec.description.output}
    assert kinds == {"classLabel": "stringType", "classLabel_probs": "dictionaryType", "logits": "multiArrayType"}
    assert spec.description.predictedFeatureName == "classLabel"
    assert spec.description.predictedProbabilitiesName == "classLabel_probs"
    (classify,) = operations(path, "classify")
    assert [str(getattr(label, "val", label)) for label in classify.classes.val] == list(LABELS)


def test_the_package_computes_what_it_says(convert: Convert) -> None:
    """A picture into the image package gives the logits that normalised floats give without it, and their argmax."""
    plain, package = load_package(convert("fp32", PackageOptions())), load_package(convert("fp32", EVERYTHING))
    for levels in pictures(3, seed=1):
        picture = Image.fromarray(levels.transpose(1, 2, 0))
        found = package.predict({"images": picture})
        expected = plain.predict({"images": normalised(levels[None])})["logits"]
        assert np.abs(found["logits"] - expected).max() <= 1e-5 * np.abs(expected).max()
        assert found["classLabel"] == LABELS[int(expected.argmax())]
        exponentials = np.exp(expected.ravel() - expected.max())
        assert list(found["classLabel_probs"]) == list(LABELS)
        assert np.allclose(list(found["classLabel_probs"].values()), exponentials / exponentials.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "says"), [(LABELS[:4], "4 class labels for 5 logits"), (("ant", *LABELS[:4]), r"occur twice \(ant\)")]
)
def test_labels_that_do_not_fit_are_refused(
    labels: tuple[str, ...], says: str, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    program = load_program(programs["fp32"].path)
    options = PackageOptions(class_labels=labels)
    with pytest.raises(TargetError, match=says) as caught:
        COREML.convert(ConvertRequest(program, "fp16", tmp_path / "x.mlpackage", {}, options))
    assert caught.value.stage == "convert"
    assert not list(tmp_path.iterdir())
    assert len(LABELS) == CLASSES


def test_a_package_holds_nothing_but_the_model_its_weights_and_the_manifest(convert: Convert) -> None:
    """coremltools adds a debug map for ExecuTorch, 0.4 MB of 6.5 in a T2T-ViT, unless the program was wrapped."""
    data = "Data/com.apple.CoreML"
    for options in (PackageOptions(), PackageOptions(signed_weights=True), EVERYTHING):
        package = convert("int8", options)
        files = {file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()}
        assert files == {"Manifest.json", f"{data}/model.mlmodel", f"{data}/weights/weight.bin"}
        assert check_seal(package)


# Deployment targets


def test_every_system_is_one_of_coremltools() -> None:
    import coremltools as ct

    for name, release in deployment.SYSTEMS.items():
        assert ct.target[name] == ct.target[f"iOS{release}"]


@pytest.mark.parametrize("system", ["iOS15", "macOS13", "iOS18"])
def test_the_package_is_for_the_system_asked_for(system: str, convert: Convert) -> None:
    import coremltools as ct

    spec, _ = load_main(convert("fp16", PackageOptions(deployment_target=system)))
    assert spec.specificationVersion == ct.target[system].value


@pytest.mark.parametrize(
    ("precision", "system", "says"),
    [
        ("int8", "iOS16", "int8 needs iOS17 or later"),
        ("int8", "macOS13", "int8 needs macOS14 or later"),
        ("w4", "iOS17", "w4 needs iOS18 or later"),
        ("lut4", "iOS15", "lut4 needs iOS16 or later"),
        ("fp16", "ios17", "Did you mean 'iOS17'"),
        ("fp16", "Android", "not one of iOS15"),
    ],
)
def test_a_system_that_lacks_the_operators_is_refused(
    precision: Precision, system: str, says: str, programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    assert says in deployment.problem(precision, system)
    program = load_program(programs["int8" if precision == "int8" else "fp32"].path)
    options = PackageOptions(deployment_target=system)
    with pytest.raises(TargetError, match=says):
        COREML.convert(ConvertRequest(program, precision, tmp_path / "x.mlpackage", {}, options))


# Float32 operators


@pytest.mark.parametrize("asked", ["softmax", "gelu_cast_fp16", "gelu", "linear_1"])
def test_operators_by_type_or_name_stay_float32(asked: str, convert: Convert) -> None:
    found = operations(convert("fp16", PackageOptions(float32_operators=(asked,))))
    float32 = {op.op_type for op in found if op.op_type != "cast" and op.outputs[0].dtype.__name__ == "fp32"}
    assert float32 == {asked.removesuffix("_cast_fp16").removesuffix("_1")}
    if asked == "linear_1":
        assert [op.outputs[0].dtype.__name__ for op in found if op.op_type == "linear"].count("fp32") == 1


def test_an_operator_that_is_not_there_is_an_error_with_near_names(
    programs: dict[str, SavedProgram], tmp_path: Path
) -> None:
    program = load_program(programs["fp32"].path)
    options = PackageOptions(float32_operators=("softmax", "layernorm"))
    with pytest.raises(TargetError, match=r"'layernorm'.* near ones are layer_norm.*; types are .*softmax"):
        COREML.convert(ConvertRequest(program, "fp16", tmp_path / "x.mlpackage", {}, options))


# Unsigned weights


def test_unsigned_weights_hold_the_same_values(convert: Convert, programs: dict[str, SavedProgram]) -> None:
    """Unsigned is the default: signed weights were reported to be decoded wrongly on GPU and Neural Engine."""
    signed, unsigned = convert("int8", PackageOptions(signed_weights=True)), convert("int8", PackageOptions())
    for package, dtype in ((signed, np.int8), (unsigned, np.uint8)):
        stored = {op.quantized_data.val.dtype for op in operations(package, "constexpr_affine_dequantize")}
        assert stored == {np.dtype(dtype)}
    image = {"images": programs["int8"].images[:1]}
    expected, seen = (load_package(path).predict(image)["logits"] for path in (signed, unsigned))
    assert np.array_equal(seen, expected)


# Weight-only compression


def weights(path: Path) -> list[tuple[Any, np.ndarray]]:
    """Operation and decoded weight of every weighted layer, in the order of the program."""
    found = []
    for operation in operations(path, "linear", "conv"):
        source = operation.weight.op
        value = source.materialized_val_inference() if source.op_type.startswith("constexpr") else source.val.val
        found.append((source, np.asarray(value, np.float32)))
    return found


@pytest.mark.parametrize("options", [PackageOptions(), PackageOptions(deployment_target="iOS18")], ids=["17", "18"])
def test_w8_has_one_scale_for_each_channel_and_no_minus_128(options: PackageOptions, convert: Convert) -> None:
    exact = weights(convert("fp16", PackageOptions()))
    found = weights(convert("w8", options))
    assert len(found) == 7
    for (operation, decoded), (_, original) in zip(found, exact, strict=True):
        data = operation.quantized_data.val if options == PackageOptions() else operation.data.val
        unsigned = options == PackageOptions()  # iOS 18 has another operator, about which there are no reports
        assert data.dtype == (np.uint8 if unsigned else np.int8)
        assert data.min() >= (1 if unsigned else -127)
        assert np.ravel(operation.scale.val).size == original.shape[0]
        largest = np.abs(original).reshape(len(original), -1).max(axis=1)
        error = np.abs(decoded - original).reshape(len(original), -1).max(axis=1)
        assert (error <= largest / 127 * 0.5 + 2**-10 * largest).all()  # half a step, and half precision


def test_w4_has_blocks_of_32_and_int8_where_they_do_not_fit(convert: Convert) -> None:
    from coremltools.converters.mil.mil import types

    exact = weights(convert("fp16", PackageOptions()))
    for (operation, decoded), (_, original) in zip(weights(convert("w4", PackageOptions())), exact, strict=True):
        in_blocks = original.shape[1] % 32 == 0
        assert operation.op_type == "constexpr_blockwise_shift_scale"
        assert types.builtin_to_string(operation.data.dtype) == ("int4" if in_blocks else "int8")
        bits, scales = (4, original.shape[1] // 32) if in_blocks else (8, 1)
        assert operation.scale.val.shape[:2] == (original.shape[0], scales)
        step = operation.scale.val.astype(np.float32).max()
        assert np.abs(operation.data.val.astype(int)).max() <= 2 ** (bits - 1) - 1
        assert np.abs(decoded - original).max() <= 0.5 * step + 2**-10 * np.abs(original).max()


@pytest.mark.parametrize(("precision", "bits"), [("lut8", 8), ("lut6", 6), ("lut4", 4)])
def test_a_palette_replaces_each_weight_that_it_makes_smaller(
    precision: Precision, bits: int, convert: Convert
) -> None:
    exact = weights(convert("fp16", PackageOptions()))
    compressed = 0
    for (operation, decoded), (_, original) in zip(weights(convert(precision, PackageOptions())), exact, strict=True):
        if original.size * bits + 16 * 2**bits < 16 * original.size:
            assert operation.op_type == "constexpr_lut_to_dense"
            lut = np.unique(operation.lut.val.astype(np.float32))
            assert len(lut) <= 2**bits
            nearest = lut[np.abs(original[..., None] - lut).argmin(axis=-1)]
            assert np.abs(nearest - original).max() >= np.abs(decoded - original).max() - 1e-6
            compressed += 1
        else:
            assert operation.op_type == "const"
            assert np.array_equal(decoded, original)
    assert compressed


@pytest.mark.parametrize("precision", WEIGHT_ONLY)
def test_compression_is_repeatable(precision: Precision, convert: Convert, programs: dict[str, SavedProgram]) -> None:
    first = convert(precision, PackageOptions())
    second = first.with_name(f"again-{precision}.mlpackage")
    COREML.convert(ConvertRequest(load_program(programs["fp32"].path), precision, second))
    content = [(path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes() for path in (first, second)]
    assert content[0] == content[1]


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    from pipeline.quantization.graph import export

    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    program = export(torch.nn.Sequential(layer, torch.nn.Flatten()).eval(), (3, 8, 8))
    for precision in ("w8", "w4"):
        COREML.convert(ConvertRequest(program, precision, tmp_path / "x.mlpackage"))
        ((_, decoded),) = weights(tmp_path / "x.mlpackage")
        assert not decoded[1].any()
        assert np.isfinite(decoded).all()
        assert decoded[0].any()


def test_the_palette_is_as_good_as_another_k_means() -> None:
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    for weight in (rng.normal(size=20_000), rng.standard_t(3, size=20_000)):
        weight = (0.05 * weight).astype(np.float16)
        for bits in (4, 6):
            lut, indices = palette(weight, bits)
            ours = ((lut.astype(np.float64)[indices] - weight) ** 2).sum()
            theirs = KMeans(1 << bits, tol=1e-6, max_iter=1000, n_init=1, random_state=0)
            assert ours <= 1.05 * theirs.fit(weight.astype(np.float64).reshape(-1, 1)).inertia_


def test_a_palette_keeps_few_values_exactly() -> None:
    weight = np.array([[0.5, -1.0], [0.25, 0.5]], np.float16)
    lut, indices = palette(weight, 4)
    assert len(lut) == 16
    assert np.array_equal(lut[indices].reshape(2, 2), weight)


# Metadata


def test_xcode_shows_who_made_it_and_from_what(convert: Convert) -> None:
    path = convert("w8", EVERYTHING)
    metadata = load_main(path)[0].description.metadata
    assert (metadata.author, metadata.license, metadata.versionString) == ("Example Ltd", "Apache-2.0", "run-1")
    assert metadata.shortDescription == "tiny: image classifier, int8 weights, half precision activations."
    own = {k.removeprefix("edge_t2t."): v for k, v in metadata.userDefined.items() if k.startswith("edge_t2t.")}
    assert (own["run"], own["program_sha256"], own["precision"]) == ("run-1", "ab" * 32, "w8")
    assert json.loads(own["classes"]) == list(LABELS)
    assert set(json.loads(own["tools"])) == {"edge-t2t", "coremltools", "torch"}
    description = load_main(path)[0].description
    for feature in (*description.input, *description.output):
        assert feature.shortDescription, feature.name


# The seal


@pytest.fixture
def package(convert: Convert, tmp_path: Path) -> Path:
    """A package of its own, to be damaged."""
    return Path(shutil.copytree(convert("int8", EVERYTHING), tmp_path / "sealed.mlpackage"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    from coremltools.proto import Model_pb2

    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())


def test_a_sealed_package_fits_its_seal_and_loads(package: Path) -> None:
    import coremltools as ct

    assert check_seal(package)
    loaded = ct.models.MLModel(str(package), skip_model_load=True)
    assert len(loaded.user_defined_metadata[SEAL]) == 64
    assert {feature.name for feature in loaded.get_spec().description.output} >= {"logits"}


def test_one_flipped_bit_of_a_weight_is_found(package: Path) -> None:
    file = package / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    load_main(package)  # coremltools itself sees nothing
    with pytest.raises(ValueError, match=r"content sha256 [0-9a-f]{64}, sealed [0-9a-f]{64}"):
        check_seal(package)


@pytest.mark.parametrize("part", ["program", "description", "metadata", "weights name"])
def test_a_change_of_any_part_is_found(part: str, package: Path) -> None:
    weight_file = package / "Data/com.apple.CoreML/weights/weight.bin"
    if part == "program":
        edit(package, lambda m: m.mlProgram.functions["main"].block_specializations["CoreML7"].operations.pop())
    elif part == "description":
        edit(package, lambda m: m.description.output.pop())
    elif part == "metadata":
        edit(package, lambda m: m.description.metadata.userDefined.update({"edge_t2t.run": "another"}))
    else:
        weight_file.rename(weight_file.with_name("other.bin"))
    with pytest.raises(ValueError, match="changed after it was written"):
        check_seal(package)


def test_a_package_of_ours_without_its_seal_is_not_taken_for_a_foreign_one(package: Path) -> None:
    edit(package, lambda m: m.description.metadata.userDefined.pop(SEAL))
    with pytest.raises(ValueError, match="convert again"):
        check_seal(package)


def test_a_foreign_package_has_no_seal(package: Path) -> None:
    def make_foreign(model: Any) -> None:
        for key in [k for k in model.description.metadata.userDefined if k.startswith("edge_t2t.")]:
            model.description.metadata.userDefined.pop(key)

    edit(package, make_foreign)
    assert check_seal(package) is False


@pytest.mark.parametrize("damage", ["no manifest", "no model", "no protobuf"])
def test_a_folder_that_is_no_package_is_told_by_name(damage: str, package: Path) -> None:
    if damage == "no manifest":
        (package / "Manifest.json").write_text("{")
    elif damage == "no model":
        (package / "Data/com.apple.CoreML/model.mlmodel").unlink()
    else:
        (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"PK\x03\x04" * 99)
    with pytest.raises(ValueError, match=r"sealed\.mlpackage"):
        check_seal(package)
