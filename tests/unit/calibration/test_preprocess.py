"""Every kind of image file that data sets really hold is read rightly, or named; the transform is timm's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.augment import Augmentation
from calibration.dataset import DataError
from calibration.preprocess import EvalTransform, read_image
from calibration.torchvision_compat import ensure_torchvision

EVALUATION = EvalTransform((3, 48, 48), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9, "bicubic")


def stored(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def pixel(source: io.BytesIO, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = read_image(source)
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(stored(image, "PNG")) == (10, 200, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    half = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
    assert pixel(stored(Image.new(mode, (4, 4), half), "PNG")) == (127, 127, 127)
    clear = tuple(0 for _ in half)
    assert pixel(stored(Image.new(mode, (4, 4), clear), "PNG")) == (255, 255, 255)


def test_the_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(stored(image, "PNG", transparency=1)) == (255, 255, 255)


def test_a_palette_with_an_alpha_for_each_entry() -> None:
    """Half of (100, 0, 0) on white: 100 * 128/255 + 255 * 127/255."""
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 10, 200, 30, 100, 0, 0])
    image.putdata([0, 1, 2])
    seen = np.asarray(read_image(stored(image, "PNG", transparency=bytes([255, 0, 128]))))
    np.testing.assert_array_equal(seen, [[[0, 0, 0], [255, 255, 255], [177, 127, 127]]])


@pytest.mark.parametrize(
    ("mode", "clear", "other", "shown"),
    [
        ("RGB", (1, 2, 3), (9, 8, 7), (9, 8, 7)),
        ("L", 5, 9, (9, 9, 9)),
        ("1", 0, 1, (255, 255, 255)),
        ("I;16", 0x1234, 0x8080, (128, 128, 128)),
    ],
)
def test_the_clear_colour_of_an_image_without_alpha_is_white(
    mode: str, clear: int, other: int, shown: tuple[int, ...]
) -> None:
    image = Image.new(mode, (2, 1), other)
    image.putpixel((0, 0), clear)
    file = stored(image, "PNG", transparency=clear)
    assert pixel(file) == (255, 255, 255)
    file.seek(0)
    assert pixel(file, (1, 0)) == shown


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 0x8080], [0xFFFF, 0x0101]], dtype=np.uint16)
    image = read_image(stored(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(np.asarray(image)[..., 0], [[0, 128], [255, 1]])


def test_float_grey_is_scaled_by_its_range() -> None:
    unit = read_image(stored(Image.fromarray(np.array([[0.0, 0.2]], dtype=np.float32)), "TIFF"))
    np.testing.assert_array_equal(np.asarray(unit)[0, :, 0], [0, 51])
    wide = read_image(stored(Image.fromarray(np.array([[-10.0, 30.0]], dtype=np.float32)), "TIFF"))
    np.testing.assert_array_equal(np.asarray(wide)[0, :, 0], [0, 255])


def test_integers_outside_of_16_bit_are_scaled_by_their_range() -> None:
    deep = read_image(stored(Image.fromarray(np.array([[0, 100_000, 200_000]], dtype=np.int32)), "TIFF"))
    np.testing.assert_array_equal(np.asarray(deep)[0, :, 0], [0, 128, 255])
    signed = read_image(stored(Image.fromarray(np.array([[-100, 0, 100]], dtype=np.int32)), "TIFF"))
    np.testing.assert_array_equal(np.asarray(signed)[0, :, 0], [0, 128, 255])
    usual = read_image(stored(Image.fromarray(np.array([[0, 0x8080]], dtype=np.int32)), "TIFF"))
    np.testing.assert_array_equal(np.asarray(usual)[0, :, 0], [0, 128])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_named(value: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        read_image(stored(Image.fromarray(np.array([[value, 0.5]], dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))],
)
def test_uncompressed_cmyk_is_exact(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    assert pixel(stored(Image.new("CMYK", (2, 2), ink), "TIFF")) == colour


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = pixel(stored(cyan, "JPEG", quality=95), (8, 8))
    assert red < 10
    assert min(green, blue) > 245


def test_one_bit_and_grey_are_spread_over_three_channels() -> None:
    assert pixel(stored(Image.new("1", (4, 4), 1), "PNG")) == (255, 255, 255)
    assert pixel(stored(Image.new("L", (4, 4), 77), "PNG")) == (77, 77, 77)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (5, 3)), (6, (3, 0)), (8, (0, 5)), (2, (5, 0))])
def test_exif_orientation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    """A red dot is stored top left; EXIF 6 means that the camera was turned, and the dot belongs top right."""
    image = Image.new("RGB", (6, 4), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_image(stored(image, "PNG", exif=exif))
    assert upright.size == ((4, 6) if orientation in (6, 8) else (6, 4))
    assert upright.getpixel(corner) == (255, 0, 0)


def test_orientation_and_transparency_together() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_image(stored(image, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(upright), [[[255, 0, 0]], [[255, 255, 255]]])


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_an_animation_gives_its_first_frame(kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert pixel(stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jpg", b"", "is not an image"),
        ("notes.png", b"hello", "is not an image"),
        ("page.jpg", b"<html><body>404</body></html>", "is not an image"),
    ],
)
def test_what_is_no_image_is_named(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read_image(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_named(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = stored(Image.fromarray(noise), kind).getvalue()
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"half\."):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "AVIF", "BLP", "IM"])
def test_damage_anywhere_is_read_or_named_and_nothing_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some decoders raise kinds of errors of their own, which must not stop the list of all bad files."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # damaged headers tell of gigabytes
    generator = np.random.default_rng(7)
    image = Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    try:
        sound = stored(image.convert("P") if kind == "BLP" else image, kind).getvalue()
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    named = 0
    for _ in range(150):
        damaged = bytearray(sound)
        for at in generator.integers(0, min(len(sound), 400), 4):
            damaged[at] = generator.integers(0, 256)
        try:
            assert read_image(io.BytesIO(damaged)).mode == "RGB"
        except DataError:
            named += 1
    assert named > 0


@pytest.mark.parametrize(
    ("kind", "mode", "at", "value"),
    [("BLP", "P", 4, 77), ("AVIF", "RGB", 0, 0)],
)
def test_errors_of_a_decoders_own_kind_are_named(kind: str, mode: str, at: int, value: int, tmp_path: Path) -> None:
    """BLP raises a NotImplementedError and AVIF a RuntimeError, neither of them an OSError."""
    try:
        content = bytearray(stored(Image.new(mode, (16, 16)), kind).getvalue())
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    if kind == "AVIF":
        at = content.index(b"mdat") + 4
        content[at:] = bytes(len(content) - at)
    else:
        content[at] = value
    path = tmp_path / f"damaged.{kind.lower()}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\..* cannot be decoded: ."):
        read_image(path)


def test_bytes_without_a_name_are_told_without_an_address() -> None:
    with pytest.raises(DataError, match=r"^this file is not an image"):
        read_image(io.BytesIO(b"nothing"))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="too large"):
        read_image(stored(Image.new("RGB", (40, 40)), "PNG"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


def test_the_evaluation_transform_against_a_hand_made_one() -> None:
    """Resize the short side to 48 / 0.9 = 53, take the middle 48 x 48, scale to 0..1, subtract mean, divide by std."""
    noise = np.random.default_rng(1).integers(0, 255, (106, 160, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    small = np.asarray(image.resize((80, 53), Image.Resampling.BICUBIC), dtype=np.float32)
    top, left = round((53 - 48) / 2), round((80 - 48) / 2)
    crop = small[top : top + 48, left : left + 48] / 255
    expected = (crop - np.array(EVALUATION.mean, np.float32)) / np.array(EVALUATION.std, np.float32)
    seen = EVALUATION.build()(image)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_the_evaluation_transform_is_the_one_of_timms_own_config() -> None:
    ensure_torchvision()
    import timm
    from timm.data import create_transform, resolve_data_config

    from pipeline.models.build import build
    from pipeline.training.subject import eval_transform

    config = resolve_data_config(model=timm.create_model("mobilenetv2_100"))
    theirs = create_transform(**config, is_training=False)
    _, ours = build("mobilenet_v2", num_classes=10)
    image = Image.fromarray(np.random.default_rng(2).integers(0, 255, (300, 260, 3), dtype=np.uint8))
    assert torch.equal(eval_transform(ours).build()(image), theirs(image))


def test_equal_settings_have_equal_digests_and_others_do_not() -> None:
    same = EvalTransform(**vars(EVALUATION))
    other = EvalTransform(**{**vars(EVALUATION), "crop_pct": 0.95})
    assert same.digest() == EVALUATION.digest() != other.digest()


def test_augmentation_mirrors_only_when_asked() -> None:
    """Left half white, right half black: after a mirror the bright side is on the right."""
    halves = np.zeros((48, 48, 3), dtype=np.uint8)
    halves[:, :24] = 255
    image = Image.fromarray(halves)

    def bright_left(hflip: bool) -> list[bool]:
        transform = Augmentation(hflip=hflip, scale_min=0.9).transform(EVALUATION)
        pictures = [transform(image) for _ in range(40)]
        return [bool(p[..., :20].mean() > p[..., -20:].mean()) for p in pictures]

    torch.manual_seed(0)
    assert all(bright_left(hflip=False))
    assert 5 < sum(bright_left(hflip=True)) < 35
